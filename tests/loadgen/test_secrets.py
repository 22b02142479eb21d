"""A key that the command line gave is in no file of the run, and on no terminal."""

from __future__ import annotations

import threading
from pathlib import Path

from .running import about, endpoint, locust_children, phaseload, refused, rows, trace, until

LITERAL, ORDINARY, DEEP, PATH = "sk-LITERAL-1", "hunter2", "Zq7R2mXw9TbL4kPv8NcY1sHd", "a8Fk29Lx0Qm4Vb7Nz3Rt6Yp1"


def test_a_literal_key_reaches_the_server_and_nothing_else(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 40)
    environments: set[str] = set()
    with endpoint() as server:

        def look() -> None:
            until(lambda: server.prompts)
            for process in locust_children():
                environments.add(Path(f"/proc/{process.pid}/environ").read_text())

        watch = threading.Thread(target=look)
        watch.start()
        done = phaseload(
            "replay", "t.csv", "--url", f"{server.url}/{PATH}", "-H", f"Authorization: Bearer {LITERAL}",
            "--header", f"X-Dog: {ORDINARY}", "--extra-body", f'{{"metadata": {{"a": [{{"b": "{DEEP}"}}]}}}}',
            "--out", "r", "--report", "--json", "--processes", "2", cwd=tmp_path,
        )  # fmt: skip
        watch.join()
    table = rows(tmp_path / "r")
    assert set(table["outcome"].to_pylist()) == {"ok"}, done.stderr
    assert set(table["request_id"].to_pylist()) == {"for ***"}  # it was sent, and echoed
    assert (server.paths, server.bodies[0]["metadata"]) == ({f"/{PATH}/v1/chat/completions"}, {"a": [{"b": DEEP}]})
    assert server.dogs == {ORDINARY}
    kept = [path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()]
    kept += [repr(table.to_pydict()).encode(), done.stdout.encode(), done.stderr.encode()]
    assert len(kept) > 5 and environments
    kept += [environment.encode() for environment in environments]
    assert [key for key in (LITERAL, ORDINARY, DEEP, PATH) if any(key.encode() in data for data in kept)] == []
    assert {"Authorization: ***", "X-Dog: ***", f"{server.url}/***"} < set(about(tmp_path / "r")["argv"])
    [target] = about(tmp_path / "r")["targets"]
    assert [name for name, _ in target["headers"]] == ["Authorization", "X-Dog"]


def test_a_key_in_the_extra_body_is_refused(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 2)
    body = '{"a": [{"api_key": "sk-LITERAL-1"}]}'
    done = refused("replay", "t.csv", "--url", "http://127.0.0.1:9", "--extra-body", body, cwd=tmp_path)
    assert done.returncode == 2 and "api_key" in done.stderr
    assert "sk-LITERAL" not in done.stdout + done.stderr and not (tmp_path / "runs").exists()
