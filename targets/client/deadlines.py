"""Time limits kept cheaply: a wheel of coarse ticks. Pure: instants come from the caller.

An exchange is looked at when its earliest possible limit has come, not at each read: then either a limit has passed, or
its next look is put later. Ten thousand quiet streams cost nothing between two looks.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")

TICK = 50_000_000  # nanoseconds


class Deadlines(Generic[Key]):
    """Keys by the tick at which they want to be looked at. A key is in it once."""

    __slots__ = ("_at", "_next", "_ticks")

    def __init__(self, now: int) -> None:
        self._ticks: dict[int, set[Key]] = {}
        self._at: dict[Key, int] = {}
        self._next = now // TICK

    def __len__(self) -> int:
        return len(self._at)

    def put(self, key: Key, instant: int) -> None:
        """Look at `key` in the first tick that begins after `instant`."""
        self.drop(key)
        tick = max(instant // TICK + 1, self._next)
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
        last = now // TICK
        if last - self._next > len(self._ticks):  # after a long pause: by what is there, not tick by tick
            ticks = sorted(tick for tick in self._ticks if tick <= last)
        else:
            ticks = [tick for tick in range(self._next, last + 1) if tick in self._ticks]
        self._next = max(self._next, last + 1)
        found: list[Key] = []
        for tick in ticks:
            found.extend(self._ticks.pop(tick))
        for key in found:
            del self._at[key]
        return found
