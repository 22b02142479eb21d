"""The run's clock, the only module that reads time.

Every instant is CLOCK_REALTIME, because that is the clock of the kernel's receive timestamps, less the run's start.
CLOCK_REALTIME can be stepped. `Steps` sees that by comparing it with CLOCK_MONOTONIC; the run's clock then follows, so
that instants before and after a step are right again, and only exchanges open across it can't be measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

Read = Callable[[], int]

# The C functions themselves: these are called for every read. Both read CLOCK_REALTIME and CLOCK_MONOTONIC on Linux.
realtime_ns = time.time_ns
monotonic_ns = time.monotonic_ns
cpu_ns = time.process_time_ns  # CPU time of this process


class Clock:
    """Nanoseconds from `origin`, an instant on CLOCK_REALTIME (nanoseconds since the epoch)."""

    __slots__ = ("_offset", "origin")

    def __init__(self, origin: int | None = None) -> None:
        self.origin = realtime_ns() if origin is None else origin
        self._offset = apart()

    def now(self) -> int:
        return realtime_ns() - self.origin

    def monotonic(self, instant: int) -> int:
        """The instant on CLOCK_MONOTONIC, for a timer that a clock step must not move."""
        return instant + self.origin - self._offset

    def drift(self) -> int:
        """How far CLOCK_REALTIME has moved against CLOCK_MONOTONIC since the anchor, but for steps that it followed."""
        return apart() - self._offset

    def follow(self, step: int) -> None:
        """CLOCK_REALTIME was stepped by so many nanoseconds: the same instants as if it had not been."""
        self.origin += step
        self._offset += step


def apart(realtime: Read = realtime_ns, monotonic: Read = monotonic_ns) -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC: the best of a few tries, for we may be preempted between two reads."""
    tries: list[tuple[int, int]] = []  # width, and the difference
    while len(tries) < 5 and not (tries and tries[-1][0] < 5_000):
        before, now, after = monotonic(), realtime(), monotonic()
        tries.append((after - before, now - (before + after) // 2))
    return min(tries)[1]


class Steps:
    """Watches for steps of CLOCK_REALTIME; slewing (500 ppm at most) is followed in silence."""

    def __init__(self, realtime: Read = realtime_ns, monotonic: Read = monotonic_ns) -> None:
        self._read = partial(apart, realtime, monotonic)
        self._last = self._read()

    def look(self, least: int) -> int:
        """Nanoseconds by which the clock was stepped since the last look; 0 for less than `least`."""
        now = self._read()
        size, self._last = now - self._last, now
        return size if abs(size) >= least else 0
