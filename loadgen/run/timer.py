"""A timer exact to tens of microseconds for gevent's loop: gevent.sleep is late by 0.7 ms at the median, because libev
waits in whole milliseconds. An io watcher on a timerfd wakes the waiting greenlet in the same turn of the loop."""

from __future__ import annotations

from typing import Any

import gevent

from targets.timerfd import Timerfd

READ = 1


class Timer(Timerfd):
    """One alarm on CLOCK_MONOTONIC. `set` may be called by any greenlet, `wait` by one."""

    def __init__(self) -> None:
        super().__init__()
        loop: Any = gevent.get_hub().loop
        self._watcher = loop.io(self.fd, READ, priority=loop.MAXPRI)  # before the reads of the same turn

    def wait(self) -> None:
        gevent.get_hub().wait(self._watcher)
        self.clear()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        super().close()
