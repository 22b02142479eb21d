"""Where a job's tokens go: an event stream, or an answer given whole at the end.

A stream writes straight to its connection's transport, one write a step. It needs no back-pressure: a response is at
most the model's context of tokens, so what a client that doesn't read can pile up is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..clock import realtime_ns
from .answers import WORDS, Format, framed, text


class Sink(Protocol):
    """What the driver does with a job's tokens; the instants are actual ones, ns since the epoch."""

    received: int
    first: int
    last: int
    over: asyncio.Future[None]

    def token(self) -> None: ...

    def tokens(self, count: int) -> None: ...

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The rest of `output` tokens has come out, and the answer is complete."""
        ...


class Stream:
    __slots__ = ("_cycle", "_format", "_write", "first", "last", "over", "received", "sent")

    def __init__(self, format: Format, write: Callable[[bytes], None], received: int) -> None:
        self._format, self._write, self.received = format, write, received
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cycle = format.cycle()
        self.sent = self.first = self.last = 0

    def token(self) -> None:
        sent = self.sent
        if sent:
            self._write(self._cycle[sent % len(WORDS)])
            self.sent = sent + 1
        else:
            self.tokens(1)

    def tokens(self, count: int) -> None:
        """Several tokens in one event, as speculative decoding gives them."""
        self.first = self.first or realtime_ns()
        self._write(framed(self._format.tokens(text(self.sent, count))))
        self.sent += count

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The last tokens and all that follows, in one write."""
        self.last = realtime_ns()
        self.first = self.first or self.last
        last = self._format.tokens(text(self.sent, output - self.sent))
        self._write(framed(last + closing()))
        self.sent = output
        self.finish()

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Whole:
    __slots__ = ("first", "last", "over", "received")

    def __init__(self, received: int) -> None:
        self.received = received
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = self.last = 0

    def token(self) -> None:
        self.first = self.first or realtime_ns()

    def tokens(self, count: int) -> None:
        self.token()

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        self.last = realtime_ns()
        self.first = self.first or self.last
        if not self.over.done():
            self.over.set_result(None)
