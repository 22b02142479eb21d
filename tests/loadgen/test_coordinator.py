"""What a worker may send to the coordinator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gevent.queue import Queue

from loadgen import plan as plans
from loadgen import replays
from loadgen.options import Load, RunOptions
from loadgen.run.coordinator import Coordinator, Inbox
from loadgen.run.messages import Assignment, Claim, Go, Message, decode, encode
from targets.target import Target

from .running import trace


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"kind": "ready"}, "message 'ready', field step: is missing"),
        ({"kind": "ready", "step": "0"}, "expected a whole number"),
        (encode(Go(0, 0, 0)), "only a coordinator sends"),
    ],
)
def test_a_worker_that_sends_what_nobody_knows_is_lost(tmp_path: Path, raw: Mapping[str, Any], words: str) -> None:
    target = Target("a", "http://127.0.0.1:9")
    requests = Load().requests(trace(tmp_path / "t.csv", 3))
    plan, traces = replays.planned("t", [plans.LoadStep("replay", Load(), requests)], [target], RunOptions())
    plans.save(plan, traces, tmp_path)
    sent: list[Message] = []
    inbox: Inbox = Queue()
    for message in (encode(Claim(1, "h", "b")), raw):
        inbox.put(("w", message))
    send = lambda message, _: sent.append(decode(message))  # noqa: E731
    coordinator = Coordinator(tmp_path, plan, ["w"], send, lambda _: True, inbox)
    assert coordinator.over.wait(10)
    assert [type(message) for message in sent] == [Assignment]
    assert words in coordinator.workers["w"].lost
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["ended"], facts["missing"]) == ("worker_lost", {"a": 3})
