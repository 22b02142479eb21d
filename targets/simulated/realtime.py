"""Driver two, real time: sleeps to each event of the engine and lets it happen.

The engine's instants are absolute, so being late once makes nothing later late: the plan goes on from planned
instants. One kernel timer is set to the next event; when it goes off, everything due happens. How late each step went
out is kept as a histogram, and with a log every planned instant is written down beside the actual one."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

from ..clock import monotonic_ns
from .compose import Endpoint
from .job import Job
from .timerfd import Timerfd

LATE_MS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0)  # upper bounds of the histogram's buckets


class Driver:
    """Runs an endpoint's engine on the running event loop. A job's sink is its stream: `sink.token(planned)`."""

    def __init__(self, endpoint: Endpoint, *, log: bool = False) -> None:
        self.endpoint, self.queue, self.station = endpoint, endpoint.queue, endpoint.station
        self.origin = monotonic_ns()
        self.late = [0] * (len(LATE_MS) + 1)
        self.steps: array[float] | None = array("d") if log else None  # planned, begun, ended, streams; a row a step
        self.station.emit = self._emit
        self._timer = Timerfd()
        self._set = float("inf")
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.fd, self._due)

    def now(self) -> float:
        """Engine seconds."""
        return (monotonic_ns() - self.origin) * 1e-9

    def submit(
        self, prompt: int, output: int, done: Callable[[Job, float], None], sink: Any, prefix: tuple[int, ...] = ()
    ) -> Job:
        """Starts a job at this instant."""
        now = self.now()
        self.queue.run(now)
        self._count += 1
        job = Job(self._count, now, prompt, output, done, sink, prefix)
        return self.start(job, now)

    def start(self, job: Job, now: float) -> Job:
        self.station.submit(job, now)
        self._arm()
        return job

    def cancel(self, job: Job) -> None:
        now = self.now()
        self.queue.run(now)
        if job.last < 0:
            self.station.cancel(job, now)
        self._arm()

    def close(self) -> None:
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()

    def _arm(self) -> None:
        instant = self.queue.next
        if instant != self._set and instant != float("inf"):
            self._set = instant
            self._timer.set(self.origin + int(instant * 1e9))

    def _due(self) -> None:
        self._timer.clear()
        self._set = float("inf")
        self.queue.run(self.now())
        self._arm()

    def _emit(self, jobs: Iterable[Job], planned: float) -> None:
        begun = (monotonic_ns() - self.origin) * 1e-9
        self.late[bisect_right(LATE_MS, (begun - planned) * 1e3)] += 1
        streams = 0
        for job in jobs:
            job.sink.token(planned)
            streams += 1
        if self.steps is not None:
            self.steps.extend((planned, begun, (monotonic_ns() - self.origin) * 1e-9, streams))
