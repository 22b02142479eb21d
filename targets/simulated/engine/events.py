"""The event queue that both drivers turn: virtual time jumps to the next event, real time sleeps until it.

Instants are float seconds from the engine's start. Equal instants run in the order in which they were set.
An event can't be taken back: a station that no longer needs it ignores it (`Replica._turn`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import inf
from typing import Any


class EventQueue:
    """`at` sets an event, `run` lets everything due happen; `now` is the instant of the event that is happening.

    `emit`, set in real time only, is called with the jobs that put out tokens at an instant, each but its last one.
    """

    __slots__ = ("_count", "_heap", "emit", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.emit: Callable[[Iterable[Any], float], None] | None = None
        self._heap: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        self._count = 0

    def at(self, instant: float, action: Callable[[float, Any], None], argument: Any = None) -> None:
        """Calls `action(instant, argument)` when its instant comes."""
        self._count += 1
        heappush(self._heap, (instant, self._count, action, argument))

    @property
    def next(self) -> float:
        """Instant of the next event, infinite where there is none."""
        return self._heap[0][0] if self._heap else inf

    def run(self, until: float) -> None:
        """Everything due at or before `until`, in order."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            instant, _, action, argument = heappop(heap)
            self.now = instant
            action(instant, argument)
