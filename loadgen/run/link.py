"""A worker's link to the coordinator: its inbox, messages that must arrive, the clocks' offset, and files.

Locust's channel may lose a message when a worker reconnects, so what must arrive is sent again until it is
acknowledged. Files travel in pieces, and only between machines: on one machine all use the run's folder.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gevent.queue import Empty, Queue

from targets.clock import monotonic_ns, realtime_ns
from traces.errors import InputError

from . import messages
from .messages import Final, FromWorker, Message, decode, encode

M = TypeVar("M", bound=Message)

PIECE = 512 * 1024  # bytes of a file in one message
PATIENCE = 3.0  # seconds until a message that must arrive is sent again
TRIES = 10
PINGS = 8


class RefusedError(Exception):
    """The coordinator has no part of the run for this process."""


class Link:
    """`send(dict)` puts a message on Locust's channel."""

    def __init__(self, send: Callable[[dict[str, object]], None]) -> None:
        self.finishing = False  # the run ends early: nothing but acknowledgements is waited for
        self._send = send
        self._inbox: Queue[Message | InputError] = Queue()
        self._sequence = 0

    def deliver(self, raw: Mapping[str, object]) -> Message | None:
        """Takes in what the coordinator sent, and returns it. Never blocks."""
        try:
            message: Message | InputError = decode(raw)
        except InputError as error:
            message = error
        self._inbox.put(message)
        return None if isinstance(message, InputError) else message

    def finish(self) -> None:
        """Ends all waiting. Never blocks."""
        self.finishing = True
        self._inbox.put(messages.Finish())

    def post(self, message: FromWorker) -> None:
        self._send(encode(message))

    def claim(self) -> messages.Assignment:
        """This process's part of the run. Raises RefusedError where there is none."""
        self.post(messages.Claim(os.getpid(), platform.node(), boot_id()))
        while True:
            message = self._next(None)
            if isinstance(message, messages.Assignment):
                return message
            if isinstance(message, messages.Refused):
                raise RefusedError(message.why)
            if self.finishing:
                raise RefusedError("the run has ended")

    def expect(self, kind: type[M], timeout: float | None = None, **values: object) -> M | None:
        """The next message of that kind with those values; None when the run is to finish or the time (s) is over.
        Other messages are dropped."""
        limit = None if timeout is None else time.monotonic() + timeout
        while not self.finishing or kind is messages.Ack:
            try:
                message = self._next(None if limit is None else max(0.0, limit - time.monotonic()))
            except Empty:
                return None
            if isinstance(message, kind) and all(getattr(message, name) == values[name] for name in values):
                return message
        return None

    def _next(self, timeout: float | None) -> Message:
        message = self._inbox.get(timeout=timeout)
        if isinstance(message, InputError):
            raise message
        return message

    def post_surely(self, message: messages.Rows | Final) -> bool:
        """Numbers the message and sends it until it is acknowledged. False where it never was."""
        self._sequence += 1
        numbered = replace(message, sequence=self._sequence)
        for _ in range(TRIES):
            self.post(numbered)
            if self.expect(messages.Ack, PATIENCE, sequence=self._sequence) is not None:
                return True
        return False

    def clock_offset(self, boot: str) -> tuple[int, int]:
        """(this clock - the coordinator's, its error bound), ns: from the fastest of a few round trips.

        `boot`: the coordinator's boot_id; on one machine the clock is the same one: offset and error are 0.
        """
        if boot == boot_id():
            return 0, 0
        trips: list[tuple[int, int]] = []  # duration, offset
        for number in range(PINGS):
            sent = monotonic_ns()
            self.post(messages.Ping(number))
            pong = self.expect(messages.Pong, PATIENCE, number=number)
            if pong is not None:
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
                piece = self._piece(file, out.tell())
                out.write(piece.data)
                more = piece.more
        partial.rename(path)
        return path

    def _piece(self, file: str, at: int) -> messages.Piece:
        self.post(messages.Fetch(file, at))
        piece = self.expect(messages.Piece, PATIENCE * TRIES, file=file, at=at)
        if piece is None:
            raise InputError("the master didn't send the trace", where=file)
        return piece

    def send_rows(self, path: Path) -> None:
        """A row file, in pieces."""
        with path.open("rb") as source:
            while data := source.read(PIECE):
                at = source.tell() - len(data)
                self.post_surely(messages.Rows(path.name, at, data))


def is_shared(assignment: messages.Assignment) -> bool:
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
