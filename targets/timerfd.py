"""A kernel timer at an absolute instant, as a file descriptor that any event loop can watch. Linux only.

Event loops wait in whole milliseconds (asyncio, libev): a timerfd is exact to tens of microseconds. Python has
os.timerfd_create from 3.13 on; ctypes reaches it before. See timerfd_create(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
ABSTIME, CANCEL_ON_SET = 1, 2
SECOND = 1_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class Timerfd:
    """One alarm; `fd` is readable once it has gone off. OSError where the system has none."""

    def __init__(self, clock: int = CLOCK_MONOTONIC) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._by_reference = ctypes.byref(self._spec)

    def set(self, at: int | None, flags: int = 0) -> None:
        """Goes off at `at`, nanoseconds of its clock (an instant that has passed: at once); None: never."""
        at = 0 if at is None else max(1, at)  # 0 means "disarm" to the kernel
        self._spec.value_s, self._spec.value_ns = divmod(at, SECOND)
        if self._libc.timerfd_settime(self.fd, ABSTIME | flags, self._by_reference, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Takes note of the alarm. OSError (ECANCELED) where its clock was set and CANCEL_ON_SET asked to be told."""
        with suppress(BlockingIOError):  # set anew since it went off
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


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
