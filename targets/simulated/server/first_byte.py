"""When a request's first bytes were read: before aiohttp's parser, tasks and routes, which take 0.3 ms.

A protocol that stands between the connection's transport and aiohttp's own, and passes everything on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ...clock import realtime_ns


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


def received(transport: asyncio.BaseTransport | None) -> int:
    """Of the request that is being handled on this connection."""
    protocol = transport.get_protocol() if isinstance(transport, asyncio.Transport) else None
    return protocol.received or realtime_ns() if isinstance(protocol, Stamped) else realtime_ns()


def expect_next(transport: asyncio.BaseTransport | None) -> None:
    """The answer is complete: what comes next is another request."""
    protocol = transport.get_protocol() if isinstance(transport, asyncio.Transport) else None
    if isinstance(protocol, Stamped):
        protocol.received = 0
