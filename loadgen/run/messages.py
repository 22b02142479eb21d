"""What coordinator and workers send each other, a frozen dataclass a message, and a worker's end of the link.

`encode` gives a message as the dict that goes through Locust's own channel (msgpack, or as it is in a local run),
`decode` the message again; `worker` explains when each is sent. Instants are nanoseconds: `origin` and `now` of
CLOCK_REALTIME, others from the run's start.

Locust's channel may lose a message when a worker reconnects, so what must arrive is sent again until it is
acknowledged. Files travel in pieces, and only between machines: on one machine all use the run's folder.

Whoever reaches the master's port can use the channel. Where coordinator and workers share a token (`processes.TOKEN`),
a message carries an HMAC, and what has none is a stray. What is received is hostile all the same: a stray is dropped
and counted, files have the names of a plan or of its rows, and a worker fills in only the variables and key files that
it may (`Worker`).
"""

from __future__ import annotations

import hmac
import logging
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

import gevent
from gevent.queue import Queue

from reports.store.digests import DigestState, MetricDigest
from reports.store.run_json import WorkerFacts
from targets.clock import monotonic_ns, realtime_ns
from targets.wire import lenient
from traces.errors import InputError
from traces.typed_json import from_plain, to_plain

from ..plan import Plan
from ..processes import TOKEN

PIECE = 512 * 1024  # bytes of a file in one message
PATIENCE_S = 3.0  # until a message that must arrive is sent again
TRIES = 10
PINGS = 8

log = logging.getLogger("phaseload")

# From a worker.


@dataclass(frozen=True)
class Claim:
    """A process asks for its part of the run."""

    pid: int
    host: str
    boot: str  # see `boot_id`


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
    """The worker has finished a step."""

    step: int
    unsent: dict[str, int]  # planned requests of each target that weren't due before the step's end


@dataclass(frozen=True)
class LaneProgress:
    """Requests of one target in one worker so far."""

    sent: int
    in_flight: int
    done: int
    failed: int
    ttft: DigestState
    tpot: DigestState


@dataclass(frozen=True)
class Progress:
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
    """What a worker did; `early`: it was stopped before the plan's end. Sent again until it is acknowledged."""

    worker: WorkerFacts
    early: bool
    digests: tuple[MetricDigest, ...]
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
    plan: Plan
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


FromWorker = Claim | Ping | Fetch | Ready | Over | Progress | Rows | Final | Failed
FromCoordinator = Assignment | Refused | Pong | Piece | Go | Ack | Finish
Message = FromWorker | FromCoordinator

KINDS: dict[str, type[Message]] = {kind.__name__.lower(): kind for kind in get_args(Message)}


class StrayError(InputError):
    """No message of ours."""


def encode(message: Message) -> dict[str, object]:
    """The message as a dict of plain values and bytes, with a proof where there is a token."""
    plain = {"kind": type(message).__name__.lower(), **to_plain(message)}
    return plain if TOKEN not in os.environ else {**plain, "proof": _proof(plain)}


def decode(raw: object) -> Message:
    """The message that `encode` made. Raises StrayError for what isn't one, InputError for one that can't be read."""
    fields = dict(raw) if isinstance(raw, Mapping) else {}
    proof = str(fields.pop("proof", ""))
    if TOKEN in os.environ and not hmac.compare_digest(proof.encode(), _proof(fields).encode()):
        raise StrayError("a message without this run's token", remedy="give both sides the same --token-env")
    kind = str(fields.pop("kind", None))
    if kind not in KINDS:
        raise StrayError("this version doesn't know such a message", where=lenient.line(repr(kind), 40))
    return from_plain(KINDS[kind], fields, f"message {kind!r}")


def _proof(plain: Mapping[str, object]) -> str:
    """That who sent it has the token: Locust's channel keeps plain values, and the order of a dict, as they are."""
    return hmac.new(os.environ[TOKEN].encode(), repr(plain).encode("utf-8", "backslashreplace"), "sha256").hexdigest()


M = TypeVar("M", bound=Message)


class Link:
    """`send(dict)` puts a message on Locust's channel."""

    def __init__(self, send: Callable[[dict[str, object]], None]) -> None:
        self.finishing = False  # the run ends early: nothing but acknowledgements is waited for
        self._send = send
        self._inbox: Queue[Message | InputError] = Queue()
        self._sequence = 0

    def deliver(self, raw: object) -> Message | None:
        """Takes in what the coordinator sent, and returns it. Never blocks."""
        try:
            message = decode(raw)
        except StrayError as error:
            log.warning("a message was dropped: %s", error)
            return None
        except InputError as error:
            self._inbox.put(error)
            return None
        self._inbox.put(message)
        return message

    def finish(self) -> None:
        """Ends all waiting. Never blocks."""
        self.finishing = True
        self._inbox.put(Finish())

    def post(self, message: FromWorker) -> None:
        self._send(encode(message))

    def claim(self) -> Assignment:
        """This process's part of the run. Raises InputError where there is none."""
        self.post(Claim(os.getpid(), platform.node(), boot_id()))
        while True:
            message = self._next()
            if isinstance(message, Assignment):
                return message
            if isinstance(message, Refused):
                raise InputError(message.why)
            if self.finishing:
                raise InputError("the run has ended")

    def expect(self, kind: type[M], timeout_s: float | None = None, **values: object) -> M | None:
        """The next message of that kind with those values; None when the run is to finish or the time is over. Other
        messages are dropped."""
        with suppress(gevent.Timeout), gevent.Timeout(timeout_s):
            while not self.finishing or kind is Ack:
                message = self._next()
                if isinstance(message, kind) and all(getattr(message, name) == values[name] for name in values):
                    return message
        return None

    def _next(self) -> Message:
        message = self._inbox.get()
        if isinstance(message, InputError):
            raise message
        return message

    def post_surely(self, message: Rows | Final) -> bool:
        """Numbers the message and sends it until it is acknowledged. False where it never was."""
        self._sequence += 1
        numbered = replace(message, sequence=self._sequence)
        for _ in range(TRIES):
            self.post(numbered)
            if self.expect(Ack, PATIENCE_S, sequence=self._sequence) is not None:
                return True
        return False

    def clock_offset(self, boot: str) -> tuple[int, int]:
        """(this clock - the coordinator's, its error bound), ns: from the fastest of a few round trips. `boot`: the
        coordinator's boot_id; on one machine the clock is the same one: offset and error are 0."""
        if boot == boot_id():
            return 0, 0
        trips: list[tuple[int, int]] = []  # duration, offset
        for number in range(PINGS):
            sent = monotonic_ns()
            self.post(Ping(number))
            if (pong := self.expect(Pong, PATIENCE_S, number=number)) is not None:
                trip = monotonic_ns() - sent
                trips.append((trip, realtime_ns() - trip // 2 - pong.now))
        if not trips:
            raise InputError("the master doesn't answer", remedy="check the network between master and workers")
        trip, offset = min(trips)
        return offset, trip // 2

    def fetch(self, file: str, folder: Path) -> Path:
        """A file of the run's folder, as a file of this machine: fetched into `folder` where it isn't there."""
        path = folder / file
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as out:
            more = True
            while more:
                self.post(Fetch(file, out.tell()))
                piece = self.expect(Piece, PATIENCE_S * TRIES, file=file, at=out.tell())
                if piece is None:
                    raise InputError("the master didn't send the trace", where=file)
                out.write(piece.data)
                more = piece.more
        partial.rename(path)
        return path

    def send_rows(self, path: Path) -> None:
        """A row file, in pieces."""
        with path.open("rb") as source:
            while data := source.read(PIECE):
                at = source.tell() - len(data)
                self.post_surely(Rows(path.name, at, data))


def is_shared(assignment: Assignment) -> bool:
    """Is the run's folder this machine's as well? A secret in it proves it."""
    try:
        return (Path(assignment.folder) / ".shared").read_text() == assignment.secret
    except OSError:
        return False


def boot_id() -> str:
    """Names this machine since its last start: processes with the same one share a clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{platform.node()}-{os.getppid()}"
