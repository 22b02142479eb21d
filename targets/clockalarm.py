"""An alarm for the moment when somebody sets CLOCK_REALTIME.

A timerfd of that clock, armed for an instant that never comes, with TFD_TIMER_CANCEL_ON_SET: the kernel ends its wait
with ECANCELED when the clock is set (timerfd_create(2)). Where there is no such thing the alarm stays silent, and the
coarse comparison with CLOCK_MONOTONIC remains.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

CLOCK_REALTIME = 0
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2
NEVER = 1 << 40  # seconds since the epoch


class Itimerspec(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class ClockAlarm:
    """Calls `told`, in the hub, each time that the clock was set."""

    def __init__(self, loop: Any, told: Callable[[], None]) -> None:
        self._told = told
        self._fd = -1
        if sys.platform != "linux":
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0 and self._arm():
            self._watcher = loop.io(self._fd, 1, ref=False)
            self._watcher.start(self._ready)

    def _arm(self) -> bool:
        never, flags = Itimerspec(value_s=NEVER), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
        return bool(self._libc.timerfd_settime(self._fd, flags, ctypes.byref(never), None) == 0)

    def _ready(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError:  # ECANCELED: the clock was set
            self._told()
        self._arm()
