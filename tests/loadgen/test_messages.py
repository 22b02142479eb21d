"""The messages between coordinator and workers keep their shape: the other end may be of another version."""

from __future__ import annotations

from dataclasses import fields

import pytest
from fastdigest import TDigest

from loadgen.plan import Arm, Plan, Step
from loadgen.run import messages
from loadgen.run.messages import Assignment, Final, Go, LaneProgress, Progress, Rows, decode, encode
from reports.store.digests import MetricDigest
from reports.store.run_json import WorkerFacts
from targets.exchange import ClockStep, Diagnostics
from targets.target import Target
from tests.reports import made
from traces.errors import InputError

SHAPES = {
    "claim": "pid: int, host: str, boot: str",
    "ping": "number: int",
    "fetch": "file: str, at: int",
    "ready": "step: int",
    "over": "step: int, unsent: dict[str, int]",
    "progress": "lanes: dict[str, LaneProgress]",
    "rows": "file: str, at: int, data: bytes, sequence: int",
    "final": "worker: WorkerFacts, early: bool, digests: tuple[MetricDigest, ...], sequence: int",
    "failed": "error: str",
    "assignment": "part: int, of: int, plan: Plan, salt: str, folder: str, secret: str, boot: str",
    "refused": "why: str",
    "pong": "number: int, now: int",
    "piece": "file: str, at: int, data: bytes, more: bool",
    "go": "step: int, origin: int, start: int",
    "ack": "sequence: int",
    "finish": "",
}
INNER = {
    LaneProgress: "sent: int, in_flight: int, done: int, failed: int, ttft: DigestState, tpot: DigestState",
    MetricDigest: "target: str, step: str, counted: int, failed: int, metric: str, digest: DigestState, unit: str",
    WorkerFacts: "number: int, pid: int, host: str, rows: int, lost: str | None, clock_offset_s: float | None, "
    "clock_offset_error_s: float | None, counts: dict[str, int], diagnostics: Diagnostics | None",
}


def shape(kind: type) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in fields(kind))


def test_each_kind_has_its_fields() -> None:
    assert {name: shape(kind) for name, kind in messages.KINDS.items()} == SHAPES
    assert {kind: shape(kind) for kind in INNER} == INNER


def some() -> list[messages.Message]:
    digest = TDigest(50)
    digest.update(0.25)
    step = ClockStep(1.0, 0.5)
    diagnostics = Diagnostics(**made.DIAGNOSTICS, cpu_s=1, clock_steps=(step,))  # type: ignore[arg-type]
    digests = (MetricDigest("a", "1x", 3, 1, "ttft", digest.to_dict()),)
    worker = WorkerFacts(
        number=1, pid=2, host="h", rows=3, lost=None, clock_offset_s=0.0, clock_offset_error_s=0.0, counts={"done": 3},
        diagnostics=diagnostics,
    )  # fmt: skip
    nothing = WorkerFacts(number=0, pid=2, host="h", rows=0, lost=None, clock_offset_s=0.001, diagnostics=None)
    plan = Plan(
        "p",
        (Step("base", (Arm(Target("a", "http://h"), "plan/0.arrow", 3, 2),), warmup_s=1.0),),
        slo=("ttft p50 < 1s",),
    )
    return [
        Go(0, 1_795_224_600_000_000_000, 0),
        Rows("0-00000.parquet", 512, b"\x00PAR1", 4),
        Progress({"a": LaneProgress(3, 1, 2, 0, digest.to_dict(), digest.to_dict())}),
        Final(worker, False, digests, 5),
        Final(nothing, True, ()),
        Assignment(0, 2, plan, "salt", "/runs/r", "secret", "boot"),
    ]


@pytest.mark.parametrize("message", some(), ids=lambda message: type(message).__name__)
def test_a_message_survives_locusts_channel(message: messages.Message) -> None:
    msgpack = pytest.importorskip("msgpack")
    assert decode(msgpack.loads(msgpack.dumps(encode(message)), strict_map_key=False)) == message
    assert decode(encode(message)) == message


def test_what_no_version_sends_is_refused() -> None:
    with pytest.raises(InputError, match="doesn't know"):
        decode({"kind": "conduct"})
    with pytest.raises(InputError, match="message 'go', field phase: is unknown"):
        decode({"kind": "go", "step": 0, "origin": 0, "start": 0, "phase": 1})
