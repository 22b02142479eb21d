"""Public traces with sessions against a slow server: no turn before its parent's end, unless the loop is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen import plan as plans
from tests.public_traces import public_trace

from .running import Replays, endpoint, expected, rows


@pytest.mark.parametrize(
    ("name", "speedup", "open_loop"),
    [("weka_traces", "400", False), ("ragpulse", "4000", False), ("ragpulse", "4000", True)],
)
def test_replayed_sessions(tmp_path: Path, name: str, speedup: str, open_loop: bool, replayed: Replays) -> None:
    source = public_trace(name)
    with endpoint(tokens=3, ttft=0.05, gap=0.02) as server:
        done = replayed(
            "replay", source, "--url", server.url, "--speedup", speedup, "--request-count", "80", "--max-context",
            "2048", "--out", "r", *(["--open-loop"] if open_loop else []), cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    asked = {request.index: request for request in plans.unpack(tmp_path / "r" / plans.step_file(0))}
    sent = {row["index"]: row for row in rows(tmp_path / "r").to_pylist()}
    assert sorted(sent) == sorted(asked)
    turns = [request for request in asked.values() if request.parent in asked]
    assert len(turns) > 10
    for request in asked.values():
        row = sent[request.index]
        if open_loop or request.parent not in asked:
            assert row["due"] == request.due
        else:
            parent = sent[request.parent]
            ready = max(parent["done"] + request.think, parent["body_end"] or 0)
            assert row["started"] >= row["due"] == ready
            assert row["planned"] == request.due
    if open_loop:
        assert any(sent[turn.index]["started"] < sent[turn.parent]["done"] for turn in turns)
