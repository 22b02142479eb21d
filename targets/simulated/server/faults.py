"""Faults on request, for testing testers: `stall=0.01,reset=0.01,http500=0.01,malformed=0.01,truncate=0.01`.

Each is the share of requests that it befalls, drawn by the server's seed. `http500` answers so at once; the others
strike a stream after some of its tokens: `stall` sends no more and keeps the connection, `reset` resets it,
`malformed` sends an event that is no JSON, `truncate` ends the body properly but long before its end. Answers that
are not streamed are only hit by `http500`.
"""

from __future__ import annotations

import random
import socket
import struct
from asyncio import Transport
from collections.abc import Callable

from traces.errors import InputError

from .answer import Format, framed
from .stream import Stream

KINDS = ("http500", "malformed", "reset", "stall", "truncate")
BROKEN = framed(b'data: {"id": "chatcmpl-broken", "choices": [{"delta": {"cont\n\n')
LINGER_0 = struct.pack("ii", 1, 0)  # close with a reset instead of a FIN


def shares(text: str) -> dict[str, float]:
    """Shares by kind. InputError for an unknown kind, or shares that aren't in 0..1 together."""
    parsed: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        kind, _, share = part.partition("=")
        try:
            parsed[kind.strip()] = float(share)
        except ValueError:
            raise InputError(f"--fault {part}", remedy="KIND=SHARE, as in stall=0.01") from None
    if not set(parsed) <= set(KINDS):
        raise InputError(f"--fault {text}", remedy=f"kinds are {', '.join(KINDS)}")
    if not (all(share >= 0 for share in parsed.values()) and sum(parsed.values()) <= 1):
        raise InputError(f"--fault {text}", remedy="shares are at least 0 and at most 1 together")
    return parsed


class Faults:
    """Draws a request's fate."""

    def __init__(self, shares: dict[str, float], seed: int = 0) -> None:
        self.shares, self._random = shares, random.Random(seed)

    def draw(self) -> str | None:
        """The fault of the next request, None for none."""
        point = self._random.random()
        for kind, share in self.shares.items():
            if point < share:
                return kind
            point -= share
        return None

    def strike_after(self, output: int) -> int:
        """Tokens that a stream of `output` sends before its fault."""
        return self._random.randint(0, max(0, output - 1))


class FaultyStream(Stream):
    """A stream that goes wrong after `after` tokens."""

    __slots__ = ("_after", "_kind", "_struck", "_transport")

    def __init__(self, format: Format, transport: Transport, received: int, kind: str, after: int) -> None:
        super().__init__(format, transport.write, received)
        self._transport, self._kind, self._after, self._struck = transport, kind, after, False

    def token(self) -> None:
        if not self._strikes(1):
            super().token()

    def tokens(self, count: int) -> None:
        if not self._strikes(count):
            super().tokens(count)

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        if not self._strikes(output):
            super().end(output, closing)

    def _strikes(self, count: int) -> bool:
        """Is the stream broken by now? A malformed one is, and goes on all the same."""
        if self._struck:
            return self._kind != "malformed"
        if self.sent + count <= self._after:
            return False
        self._struck = True
        if self._kind == "malformed":
            self._write(BROKEN)
            return False
        if self._kind == "truncate":
            self.finish()
        elif self._kind == "reset":
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            self._transport.abort()
        return True
