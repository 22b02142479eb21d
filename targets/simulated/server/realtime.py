"""Driver two, real time: sleeps to each event of the engine and lets it happen.

The engine's instants are absolute, so being late once makes nothing later late: the plan goes on from planned
instants. One kernel timer is set to the next event; when it goes off, everything due happens. How late each step went
out is kept as a histogram. The server's own log has planned and actual instants side by side, a JSON object a line:

    {"id", "prompt", "output", "received", "arrival", "planned": [first, last], "actual": [first, last]}     a request
    {"step": [planned, begun, ended, streams]}                                                              a step sent

`received` is when the server began to read the request, `arrival` when it was parsed and entered the engine.
The log's instants are nanoseconds since the epoch, so they can be compared with a client's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

import orjson

from traces.request import NS_PER_S

from ...clock import monotonic_ns, realtime_ns
from ...linux import Timerfd
from ..build import Endpoint
from ..engine.job import Job
from .metrics import Metrics
from .stream import Sink


class Log:
    def __init__(self, path: str, origin: int) -> None:
        """`origin`: the engine's start on CLOCK_MONOTONIC."""
        self._file = Path(path).open("wb", buffering=1 << 20)  # noqa: SIM115 - closed by close
        self._origin = realtime_ns() - monotonic_ns() + origin

    def _at(self, seconds: float) -> int:
        return self._origin + round(seconds * NS_PER_S)

    def request(self, id: str, job: Job, received: int, first: int, last: int) -> None:
        row = {"id": id, "prompt": job.prompt, "output": job.output, "received": received}
        row["arrival"] = self._at(job.arrival)
        row |= {"planned": [self._at(job.first), self._at(job.last)], "actual": [first, last]}
        self._file.write(orjson.dumps(row) + b"\n")

    def step(self, planned: float, begun: float, ended: float, streams: int) -> None:
        row = [self._at(planned), self._at(begun), self._at(ended), streams]
        self._file.write(orjson.dumps({"step": row}) + b"\n")

    def close(self) -> None:
        self._file.close()


class Driver:
    """Runs an endpoint's engine on the running event loop; a job's sink is where its tokens go."""

    def __init__(self, endpoint: Endpoint, metrics: Metrics, log: str | None = None) -> None:
        self.endpoint, self.queue, self.station, self.metrics = endpoint, endpoint.queue, endpoint.station, metrics
        self.origin = monotonic_ns()
        self.log = Log(log, self.origin) if log else None
        self.queue.emit = self._emit
        self._timer = Timerfd()
        self._set = inf  # what the timer is set to
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.fd, self._due)

    def now(self) -> float:
        """Engine seconds."""
        return (monotonic_ns() - self.origin) / NS_PER_S

    def start(
        self,
        enter: Callable[[Job, float], None],
        prompt: int,
        output: int,
        done: Callable[[Job, float], None],
        sink: Sink,
        prefix: tuple[tuple[int, int], ...] = (),
    ) -> Job:
        """A job that arrives at this instant, by `enter`: the station's `submit`, or one of its legs."""
        now = self.now()
        self.queue.run(now)
        self._count += 1
        job = Job(self._count, now, prompt, output, done, sink, prefix)
        enter(job, now)
        self._arm()
        return job

    def cancel(self, job: Job, leave: Callable[[Job, float], None]) -> None:
        """Takes the job out by `leave`, unless it is over."""
        if job.last >= 0:
            return
        now = self.now()
        self.queue.run(now)
        if job.last < 0:
            leave(job, now)
        self._arm()

    def change(self, change: Callable[[Job, float], None], job: Job) -> None:
        """Applies `change` to a job at this instant."""
        now = self.now()
        self.queue.run(now)
        change(job, now)
        self._arm()

    def close(self) -> None:
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()
        if self.log:
            self.log.close()

    def _arm(self) -> None:
        instant = self.queue.next
        if instant != self._set and instant != inf:
            self._set = instant
            self._timer.set(self.origin + int(instant * NS_PER_S))

    def _due(self) -> None:
        self._set = inf
        self.queue.run(self.now())
        self._arm()
        if self._set == inf:  # setting the timer anew would have made it unreadable as well
            self._timer.clear()

    def _emit(self, jobs: Iterable[Job], planned: float) -> None:
        begun = self.now()
        self.metrics.late.add(max(0.0, begun - planned))
        streams = 0
        for job in jobs:
            streams += 1
            if job.counts is None:
                job.sink.token()
            else:
                steps = job.place.batch.steps - job.entered
                job.sink.tokens(job.counts[steps - 1] if steps else 1)
        if self.log:
            self.log.step(planned, begun, self.now(), streams)
