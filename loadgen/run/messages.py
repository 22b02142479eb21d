"""What coordinator and workers send each other, a frozen dataclass a message; `worker` explains when each is sent.

`encode` gives a message as the dict that goes through Locust's own channel (msgpack, or as it is in a local run),
`decode` the message again. Instants are nanoseconds: `origin` and `now` of CLOCK_REALTIME, others from the run's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.store.digests import DigestState, GroupDigests
from targets.client.diagnostics import Diagnostics
from traces.errors import InputError
from traces.typed_json import from_plain, to_plain

# From a worker.


@dataclass(frozen=True)
class Claim:
    """A process asks for its part of the run. `boot`: see `link.boot_id`."""

    pid: int
    host: str
    boot: str


@dataclass(frozen=True)
class Ping:
    number: int


@dataclass(frozen=True)
class Fetch:
    """Asks for a piece of a file of requests, from byte `at` on."""

    file: str
    at: int


@dataclass(frozen=True)
class Ready:
    step: int


@dataclass(frozen=True)
class Over:
    """The worker has finished a step. `unsent`: planned requests of each target that weren't due before its end."""

    step: int
    unsent: dict[str, int]


@dataclass(frozen=True)
class LaneProgress:
    """Requests of one target in one worker so far; `ttft` and `tpot` are t-digests."""

    sent: int
    in_flight: int
    done: int
    failed: int
    ttft: DigestState
    tpot: DigestState


@dataclass(frozen=True)
class ProgressUpdate:
    lanes: dict[str, LaneProgress]  # by target


@dataclass(frozen=True)
class Rows:
    """A piece of a row file, from byte `at` on. Sent again until it is acknowledged."""

    file: str
    at: int
    data: bytes
    sequence: int = 0


@dataclass(frozen=True)
class Final:
    """A worker's totals; `early`: it was stopped before the plan's end. Sent again until it is acknowledged."""

    rows: int
    early: bool
    digests: tuple[GroupDigests, ...]
    counts: dict[str, int]
    diagnostics: Diagnostics | None
    clock_offset_s: float
    clock_offset_error_s: float
    sequence: int = 0


@dataclass(frozen=True)
class Failed:
    error: str


# From the coordinator.


@dataclass(frozen=True)
class Assignment:
    """The part of the run that a worker has: `part` of `of`. `folder` is the run's on the coordinator's machine, where
    the file `.shared` holds `secret`."""

    part: int
    of: int
    plan: bytes  # plan.json
    salt: str
    folder: str
    secret: str
    boot: str


@dataclass(frozen=True)
class Refused:
    why: str


@dataclass(frozen=True)
class Pong:
    number: int
    now: int


@dataclass(frozen=True)
class Piece:
    file: str
    at: int
    data: bytes
    more: bool


@dataclass(frozen=True)
class Go:
    """A step starts at `start`."""

    step: int
    origin: int
    start: int


@dataclass(frozen=True)
class Ack:
    sequence: int


@dataclass(frozen=True)
class Finish:
    """The run ends early."""


FromWorker = Claim | Ping | Fetch | Ready | Over | ProgressUpdate | Rows | Final | Failed
FromCoordinator = Assignment | Refused | Pong | Piece | Go | Ack | Finish
Message = FromWorker | FromCoordinator

KINDS: dict[str, type[Message]] = {
    "claim": Claim, "ping": Ping, "fetch": Fetch, "ready": Ready, "over": Over, "progress": ProgressUpdate,
    "rows": Rows, "final": Final, "failed": Failed,
    "assignment": Assignment, "refused": Refused, "pong": Pong, "piece": Piece, "go": Go, "ack": Ack, "finish": Finish,
}  # fmt: skip
_NAMES = {kind: name for name, kind in KINDS.items()}


def encode(message: Message) -> dict[str, object]:
    """The message as a dict of plain values and bytes."""
    return {"kind": _NAMES[type(message)], **to_plain(message)}


def decode(raw: Mapping[str, object]) -> Message:
    """The message that `encode` made. Raises InputError for what this version doesn't know."""
    fields = dict(raw)
    name = str(fields.pop("kind", None))
    if name not in KINDS:
        raise InputError("this version doesn't know such a message", where=repr(name))
    message: Message = from_plain(KINDS[name], fields, f"message {name!r}")
    return message
