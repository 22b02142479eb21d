"""An alarm for the moment when somebody sets CLOCK_REALTIME.

A timerfd of that clock, armed for an instant that never comes, with TFD_TIMER_CANCEL_ON_SET: the kernel ends its wait
with ECANCELED when the clock is set (timerfd_create(2)). Where there is no such thing the alarm stays silent, and the
coarse comparison with CLOCK_MONOTONIC remains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .timerfd import CANCEL_ON_SET, CLOCK_REALTIME, SECOND, Timerfd

NEVER = (1 << 33) * SECOND  # two centuries and more


class ClockAlarm:
    """Calls `told`, in the hub, each time that the clock was set."""

    def __init__(self, loop: Any, told: Callable[[], None]) -> None:
        self._told = told
        try:
            self._timer = Timerfd(CLOCK_REALTIME)
            self._timer.set(NEVER, CANCEL_ON_SET)
        except (OSError, AttributeError):  # no Linux, or a kernel without it
            return
        self._watcher = loop.io(self._timer.fd, 1, ref=False)
        self._watcher.start(self._ready)

    def _ready(self) -> None:
        try:
            self._timer.clear()
        except OSError:  # ECANCELED: the clock was set
            self._told()
        self._timer.set(NEVER, CANCEL_ON_SET)
