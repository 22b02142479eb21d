"""A key that the command line gave is in no file of the run, and on no terminal."""

from __future__ import annotations

from pathlib import Path

from .running import about, endpoint, phaseload, refused, rows, trace


def test_a_literal_key_reaches_the_server_and_nothing_else(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 4)
    with endpoint() as server:
        done = phaseload(
            "replay", "t.csv", "--url", server.url, "-H", "Authorization: Bearer sk-LITERAL-1", "--out", "r",
            "--report", "--json", "--processes", "2", cwd=tmp_path,
        )  # fmt: skip
    table = rows(tmp_path / "r")
    assert set(table["outcome"].to_pylist()) == {"ok"}, done.stderr
    assert set(table["request_id"].to_pylist()) == {"for ***"}  # it was sent, and echoed
    kept = [path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()]
    kept += [repr(table.to_pydict()).encode(), done.stdout.encode(), done.stderr.encode()]
    assert len(kept) > 5 and not any(b"sk-LITERAL" in data for data in kept)
    assert "Authorization: ***" in about(tmp_path / "r")["argv"]


def test_a_key_in_the_extra_body_is_refused(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 2)
    body = '{"a": [{"api_key": "sk-LITERAL-1"}]}'
    done = refused("replay", "t.csv", "--url", "http://127.0.0.1:9", "--extra-body", body, cwd=tmp_path)
    assert done.returncode == 2 and "api_key" in done.stderr
    assert "sk-LITERAL" not in done.stdout + done.stderr and not (tmp_path / "runs").exists()
