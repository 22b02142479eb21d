"""What a worker may say to the conductor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadgen import plan as plans
from loadgen import replays
from loadgen.load import Load
from loadgen.options import RunOptions
from loadgen.run.coordinator import Coordinator
from targets.target import Target

from .running import trace


def test_a_worker_that_says_what_nobody_knows_is_lost(tmp_path: Path) -> None:
    name = str(trace(tmp_path / "t.csv", 3))
    plan, traces = replays.planned(name, Target("a", "http://127.0.0.1:9"), Load(), RunOptions())
    plans.save(plan, traces, tmp_path)
    sent: list[dict[str, Any]] = []
    conductor = Coordinator(tmp_path, plan, ["w"], lambda message, _: sent.append(message), lambda _: True)
    conductor.deliver("w", {"kind": "claim", "pid": 1, "host": "h"})
    conductor.deliver("w", {"kind": "conduct"})
    assert conductor.over.wait(10)
    assert [message["kind"] for message in sent] == ["shard"]
    assert "conduct" in conductor.workers["w"].lost
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["ended"], facts["missing"]) == ("worker_lost", {"a": 3})
