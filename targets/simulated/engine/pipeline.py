"""GroqRack: racks of a static pipeline, one request at a time each, no jitter.

    TPOT = P * t_stage        TTFT = (S + P - 1) * t_stage        P stages, S prompt tokens

The compiler has placed every layer on its chips; there is nothing to batch and nothing to wait for inside the rack,
so a request's every instant is known when its service begins. Several racks behind one address share one queue, first
come first served; with one rack and fixed lengths that is M/D/1 under Poisson arrivals.

A job whose prompt was computed elsewhere begins with its first token and takes one TPOT for each later one.
"""

from __future__ import annotations

from collections import deque

from .job import EventQueue, Job


class Racks:
    """`racks` pipelines of `stages` stages of `stage` seconds; `limit`: tokens that the free SRAM of one holds."""

    def __init__(
        self, queue: EventQueue, *, racks: int, stages: int, stage: float, limit: int, every_token: bool = False
    ) -> None:
        self.queue, self.stages, self.stage, self.limit = queue, stages, stage, limit
        self.every_token = every_token  # real time: an event for each token, not only for the last
        self.waiting: deque[Job] = deque()
        self.free = list(range(racks - 1, -1, -1))
        self.serving: set[Job] = set()

    def use(self) -> tuple[int, int, float]:
        """Of the racks, those in use: a rack's memory belongs to one job at a time."""
        return len(self.serving), len(self.waiting), len(self.serving) / (len(self.serving) + len(self.free))

    @property
    def tpot(self) -> float:
        return self.stages * self.stage

    def submit(self, job: Job, now: float) -> None:
        job.place = self
        if self.free:
            self._serve(job, now)
        else:
            self.waiting.append(job)

    def cancel(self, job: Job, now: float) -> None:
        """A waiting job leaves the queue; one in service leaves the rack free for the next."""
        if job in self.serving:
            self._vacate(job, now)
        else:
            self.waiting.remove(job)

    def _serve(self, job: Job, now: float) -> None:
        self.serving.add(job)
        job.decode_worker = self.free.pop()
        if job.begun < 0:
            job.begun = now
        job.first = now if job.prefilled else now + (job.todo + self.stages - 1) * self.stage
        if self.every_token or job.output == 1:
            self.queue.at(job.first, self._token, job)
        else:
            self.queue.at(job.first + (job.output - 1) * self.tpot, self._end, job)

    def _token(self, now: float, job: Job) -> None:
        if job not in self.serving:
            return
        job.left -= 1
        if not job.left:
            self._end(now, job)
            return
        if self.queue.emit:
            self.queue.emit((job,), now)
        # From the first token, not from this one: no drift.
        self.queue.at(job.first + (job.output - job.left) * self.tpot, self._token, job)

    def _end(self, now: float, job: Job) -> None:
        if job not in self.serving:
            return
        job.left, job.last = 0, now
        if job.times is not None:
            job.times.extend(job.first + token * self.tpot for token in range(job.output))
        self._vacate(job, now)
        job.done(job, now)

    def _vacate(self, job: Job, now: float) -> None:
        self.serving.discard(job)
        self.free.append(job.decode_worker)
        if self.waiting:
            self._serve(self.waiting.popleft(), now)
