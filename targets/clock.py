"""The run's clock, the only module that reads time.

Every instant is CLOCK_REALTIME, because that is the clock of the kernel's receive timestamps, less the run's start.
CLOCK_REALTIME can be stepped; `drift()` compares it with CLOCK_MONOTONIC since the anchor, and a step shows there.
"""

from __future__ import annotations

import time

REALTIME = time.CLOCK_REALTIME
MONOTONIC = time.CLOCK_MONOTONIC


# The C functions themselves: these are called for every read. Both read CLOCK_REALTIME and CLOCK_MONOTONIC on Linux.
realtime_ns = time.time_ns
monotonic_ns = time.monotonic_ns
cpu_ns = time.process_time_ns  # CPU time of this process


class Clock:
    """Nanoseconds from `origin`, an instant on CLOCK_REALTIME (nanoseconds since the epoch)."""

    __slots__ = ("_offset", "origin")

    def __init__(self, origin: int | None = None) -> None:
        now, steady = realtime_ns(), monotonic_ns()
        self.origin = now if origin is None else origin
        self._offset = now - steady

    def now(self) -> int:
        return time.clock_gettime_ns(REALTIME) - self.origin

    def at(self, realtime: int) -> int:
        """A kernel timestamp (nanoseconds since the epoch) as an instant of this run."""
        return realtime - self.origin

    def monotonic(self, instant: int) -> int:
        """The instant on CLOCK_MONOTONIC, for a timer that a clock step must not move."""
        return instant + self.origin - self._offset

    def drift(self) -> int:
        """How far CLOCK_REALTIME has moved against CLOCK_MONOTONIC since the anchor: a step, or slewing."""
        return realtime_ns() - monotonic_ns() - self._offset
