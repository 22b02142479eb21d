"""The link that carries a prompt's KV cache from where it was computed to where the answer is decoded.

    t = t0 + bytes / bandwidth + handover

The bytes are the shared resource: transfers queue for it, first come first served. `t0` (set-up) and `handover` (the
schedulers' dealings) are latencies that overlap freely. With layer-wise overlap, what could travel while the prompt's
later layers were still computed is already there when the prompt is done; at least the last layer's share is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .events import EventQueue
from .job import Job


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """Seconds and bytes a second, one way."""

    t0: float
    bandwidth: float
    handover: float
    overlap: bool = False

    def seconds(self, size: float) -> float:
        """A transfer of `size` bytes on the idle link, nothing overlapped."""
        return self.t0 + size / self.bandwidth + self.handover


class Link:
    def __init__(self, queue: EventQueue, speed: LinkSpeed, *, token_bytes: float, layers: int) -> None:
        self.queue, self.speed, self.token_bytes, self.layers = queue, speed, token_bytes, layers
        self.free_at = 0.0
        self.carried = 0.0  # bytes

    def alone(self, job: Job) -> float:
        """Seconds of the job's transfer on the idle link."""
        return self.speed.seconds(job.todo * self.token_bytes)

    def send(self, job: Job, now: float, computing: float, arrived: Callable[[float, Job], None]) -> None:
        """Calls `arrived(instant, job)` when the KV of the job's prompt, computed in `computing` seconds, is there."""
        size = job.todo * self.token_bytes
        self.carried += size
        if self.speed.overlap:
            early = self.speed.bandwidth * computing * (self.layers - 1) / self.layers
            size = max(size / self.layers, size - early)
        self.free_at = max(self.free_at, now + self.speed.t0) + size / self.speed.bandwidth
        self.queue.at(self.free_at + self.speed.handover, arrived, job)
