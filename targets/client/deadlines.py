"""The time limits of an exchange, kept cheaply: which one comes next, and a wheel of coarse ticks. Pure: instants come
from the caller.

An exchange is looked at when its earliest possible limit has come, not at each read: then either a limit has passed, or
its next look is put later. Ten thousand quiet streams cost nothing between two looks.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from traces.request import NS_PER_S

from ..exchange import Exchange, Outcome
from ..rules import Limits

Key = TypeVar("Key")

TICK_NS = 50_000_000
LINGER_NS = 1_000_000_000  # that a finished answer may take to end its body; then the connection is given up


class Deadline(NamedTuple):
    """When an exchange ends unless something comes before, and how (`instant` in ns from the run's start)."""

    instant: int
    outcome: Outcome
    error: str


def next_deadline(
    exchange: Exchange, limits: Limits, finished_at: int | None, stepped: int | None, connect_share: float = 1.0
) -> Deadline:
    """The deadline of the stage that the exchange is in, or of the whole request where that comes first. `finished_at`:
    when the answer's terminator came; `stepped`: when the clock was stepped (limits count from there); `connect_share`:
    of the connect limit, for the addresses that were tried so far."""
    if finished_at is not None:
        return Deadline(finished_at + LINGER_NS, Outcome.OK, "")
    if exchange.sent is None:
        start, seconds = exchange.started or 0, limits.connect_timeout * connect_share
        outcome, error = Outcome.TIMEOUT, f"no connection within {limits.connect_timeout:g} s"
    elif exchange.token_at:
        start, seconds = exchange.token_at[-1], limits.silence_timeout
        outcome, error = Outcome.STALLED, f"no token for {seconds:g} s"
    else:
        start, seconds = exchange.sent, limits.first_token_timeout
        outcome, error = Outcome.TIMEOUT, f"no first token within {seconds:g} s"
    instant, end = _after(start, seconds, stepped), request_end(exchange, limits, stepped)
    if end < instant:
        return Deadline(end, Outcome.TIMEOUT, f"not done within {limits.request_timeout:g} s")
    return Deadline(instant, outcome, error)


def request_end(exchange: Exchange, limits: Limits, stepped: int | None) -> int:
    """The deadline of the whole request, ns from the run's start."""
    return _after(exchange.started or 0, limits.request_timeout, stepped)


def _after(instant: int, seconds: float, stepped: int | None) -> int:
    return (instant if stepped is None else max(instant, stepped)) + round(seconds * NS_PER_S)


class Deadlines(Generic[Key]):
    """Keys by the tick at which they want to be looked at. A key is in it once."""

    __slots__ = ("_at", "_next", "_ticks")

    def __init__(self, now: int) -> None:
        self._ticks: dict[int, set[Key]] = {}
        self._at: dict[Key, int] = {}
        self._next = now // TICK_NS

    def put(self, key: Key, instant: int) -> None:
        """Look at `key` in the first tick that begins after `instant`."""
        self.drop(key)
        tick = max(instant // TICK_NS + 1, self._next)
        self._at[key] = tick
        self._ticks.setdefault(tick, set()).add(key)

    def drop(self, key: Key) -> None:
        tick = self._at.pop(key, None)
        if tick is not None:
            keys = self._ticks[tick]
            keys.discard(key)
            if not keys:
                del self._ticks[tick]

    def due(self, now: int) -> list[Key]:
        """The keys whose tick has come; they are taken out."""
        last = now // TICK_NS
        if last - self._next > len(self._ticks):  # after a long pause: by what is there, not tick by tick
            ticks = sorted(tick for tick in self._ticks if tick <= last)
        else:
            ticks = [tick for tick in range(self._next, last + 1) if tick in self._ticks]
        self._next = max(self._next, last + 1)
        keys = [key for tick in ticks for key in self._ticks.pop(tick)]
        for key in keys:
            del self._at[key]
        return keys
