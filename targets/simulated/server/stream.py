"""A connection's two ends: when a request's first bytes came, and where its answer's tokens go.

First bytes are stamped before aiohttp's parser, tasks and routes, which take 0.3 ms: a protocol stands between the
connection's transport and aiohttp's own, and passes everything on.

A stream writes straight to its connection's transport, one write a step. It needs no back-pressure: a response is at
most the model's context of tokens, so what a client that doesn't read can pile up is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...clock import realtime_ns
from .answer import WORDS, Format, framed, text


class Stamped(asyncio.Protocol):
    """`received`: ns since the epoch of the first bytes since it was last set to 0."""

    def __init__(self, inner: Any) -> None:
        self.received = 0
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._pass_on = inner.data_received

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.received = realtime_ns()
        self._pass_on(data)


def received_at(transport: asyncio.BaseTransport | None) -> int:
    """Of the request that is being handled on this connection."""
    protocol = transport.get_protocol() if isinstance(transport, asyncio.Transport) else None
    return protocol.received or realtime_ns() if isinstance(protocol, Stamped) else realtime_ns()


def expect_next(transport: asyncio.BaseTransport | None) -> None:
    """The answer is complete: what comes next is another request."""
    protocol = transport.get_protocol() if isinstance(transport, asyncio.Transport) else None
    if isinstance(protocol, Stamped):
        protocol.received = 0


class Sink:
    """Where the driver gives a job's tokens; it keeps the actual instants, ns since the epoch. By itself it is the
    answer given whole: its writer waits until it is `over`."""

    __slots__ = ("first", "last", "over", "received")

    def __init__(self, received: int) -> None:
        self.received = received
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = self.last = 0

    def token(self) -> None:
        self.tokens(1)

    def tokens(self, count: int) -> None:
        """Several at once, as speculative decoding gives them."""
        self.first = self.first or realtime_ns()

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The rest of `output` tokens has come out, and the answer is complete."""
        self.last = realtime_ns()
        self.first = self.first or self.last
        self.finish()

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Stream(Sink):
    __slots__ = ("_cycle", "_format", "_write", "sent")

    def __init__(self, format: Format, write: Callable[[bytes], None], received: int) -> None:
        super().__init__(received)
        self._format, self._write = format, write
        self._cycle = format.cycle()
        self.sent = 0

    def token(self) -> None:
        sent = self.sent
        if sent:
            self._write(self._cycle[sent % len(WORDS)])
            self.sent = sent + 1
        else:
            self.tokens(1)

    def tokens(self, count: int) -> None:
        super().tokens(count)
        self._write(framed(self._format.tokens(text(self.sent, count))))
        self.sent += count

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The last tokens and all that follows, in one write."""
        super().end(output, closing)  # the instant of the last token is that before the write
        last = self._format.tokens(text(self.sent, output - self.sent))
        self._write(framed(last + closing()))
        self.sent = output
