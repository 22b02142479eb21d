"""A kernel timer at an absolute instant, for asyncio: its own timers round waits up to whole milliseconds.

Python has os.timerfd_create from 3.13 on; ctypes reaches it before. Linux only.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1
CLOCK_MONOTONIC = 1


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


_libc = ctypes.CDLL(None, use_errno=True)


class Timerfd:
    """One alarm; `fd` is readable once it has gone off."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._by_reference = ctypes.byref(self._spec)

    def set(self, at: int) -> None:
        """Goes off at `at`, nanoseconds of CLOCK_MONOTONIC; at once if that has passed."""
        self._spec.value_s, self._spec.value_ns = divmod(max(at, 1), 1_000_000_000)
        _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, self._by_reference, None)

    def clear(self) -> None:
        with suppress(BlockingIOError):  # set anew since it went off
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
