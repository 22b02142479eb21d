"""The messages between coordinator and workers keep their shape: the other end may be of another version."""

from __future__ import annotations

from dataclasses import fields

import pytest
from fastdigest import TDigest

from loadgen.run import messages
from loadgen.run.messages import Final, Go, LaneProgress, ProgressUpdate, Rows, decode, encode
from reports.store.digests import GroupDigests
from targets.client.diagnostics import ClockStep, Diagnostics
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
    "final": "rows: int, early: bool, digests: tuple[GroupDigests, ...], counts: dict[str, int], "
    "diagnostics: Diagnostics | None, clock_offset_s: float, clock_offset_error_s: float, sequence: int",
    "failed": "error: str",
    "assignment": "part: int, of: int, plan: bytes, salt: str, folder: str, secret: str, boot: str",
    "refused": "why: str",
    "pong": "number: int, now: int",
    "piece": "file: str, at: int, data: bytes, more: bool",
    "go": "step: int, origin: int, start: int",
    "ack": "sequence: int",
    "finish": "",
}
INNER = {
    LaneProgress: "sent: int, in_flight: int, done: int, failed: int, ttft: DigestState, tpot: DigestState",
    GroupDigests: "target: str, step: str, counted: int, failed: int, digests: dict[str, DigestState]",
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
    groups = (GroupDigests("a", "1x", 3, 1, {"ttft": digest.to_dict()}),)
    return [
        Go(0, 1_795_224_600_000_000_000, 0),
        Rows("0-00000.parquet", 512, b"\x00PAR1", 4),
        ProgressUpdate({"a": LaneProgress(3, 1, 2, 0, digest.to_dict(), digest.to_dict())}),
        Final(3, False, groups, {"done": 3}, diagnostics, 0.0, 0.0, 5),
        Final(0, True, (), {}, None, 0.001, 0.0),
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
