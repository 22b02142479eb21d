"""Several replicas behind one address: each job goes to the one with the fewest jobs."""

from __future__ import annotations

from .batching import Replica
from .job import Job


class Pool:
    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas, self.queue = replicas, replicas[0].queue
        for worker, replica in enumerate(replicas):
            replica.worker = worker

    @property
    def load(self) -> int:
        return sum(replica.load for replica in self.replicas)

    @property
    def queued(self) -> int:
        return sum(replica.queued for replica in self.replicas)

    @property
    def kv_use(self) -> float:
        return sum(replica.kv_use for replica in self.replicas) / len(self.replicas)

    @property
    def limit(self) -> int:
        return self.replicas[0].limit

    def submit(self, job: Job, now: float) -> None:
        replica = self.replicas[0] if len(self.replicas) == 1 else min(self.replicas, key=_load)
        if job.prefill_only:
            job.prefill_worker = replica.worker
        else:
            job.decode_worker = replica.worker
        replica.submit(job, now)

    def cancel(self, job: Job, now: float) -> None:
        job.place.cancel(job, now)

    def release(self, job: Job, now: float) -> None:
        self.replicas[job.prefill_worker].release(job, now)


def _load(replica: Replica) -> int:
    return replica.load
