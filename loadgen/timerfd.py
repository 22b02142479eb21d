"""A timer of the kernel's, exact to tens of microseconds, for gevent's loop.

gevent.sleep is late by 0.7 ms at the median, because libev waits in whole milliseconds. A timerfd becomes readable at
an absolute instant of CLOCK_MONOTONIC, and an io watcher wakes the waiting greenlet in the same turn of the loop.
Python has os.timerfd_create from 3.13 on; ctypes reaches it before.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import gevent

CLOCK_MONOTONIC = 1
TFD_NONBLOCK = os.O_NONBLOCK
TFD_CLOEXEC = os.O_CLOEXEC
TFD_TIMER_ABSTIME = 1
READ = 1
SECOND = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """One alarm. `set` may be called by any greenlet, `wait` by one."""

    def __init__(self) -> None:
        self._fd = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._watcher = gevent.get_hub().loop.io(self._fd, READ)

    def set(self, at: int | None) -> None:
        """Wakes the waiter at `at`, ns of CLOCK_MONOTONIC (an instant that has passed: at once); None: never."""
        at = 0 if at is None else max(1, at)  # 0 means "disarm" to the kernel
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(at, SECOND)))
        if _libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def wait(self) -> None:
        gevent.get_hub().wait(self._watcher)
        with suppress(BlockingIOError):  # it was set anew between the wake-up and this read
            os.read(self._fd, 8)

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        os.close(self._fd)
