"""Prefill pool -> KV link -> decode pool.

A job's prompt is computed in the prefill pool, which keeps the KV until the link has carried it; then the decode pool
takes the job in and puts out its first token (the prefill's) as soon as it has a place for it, so TTFT is queue +
prefill + transfer + the wait for that place. Prompts shorter than `local_below` skip all that: the decode pool
computes them itself, if it can.

The link carries a prompt's KV cache in

    t = t0 + bytes / bandwidth + handover

The bytes are the shared resource: transfers queue for it, first come first served. `t0` (set-up) and `handover` (the
schedulers' dealings) are latencies that overlap freely. With layer-wise overlap, what could travel while the prompt's
later layers were still computed is already there when the prompt is done; at least the last layer's share is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .job import EventQueue, Job, Station
from .replica import Pool

KEPT = 480.0  # seconds that a KV cache waits for decode (vLLM's VLLM_NIXL_ABORT_REQUEST_TIMEOUT)


@dataclass(slots=True, kw_only=True)
class Link:
    """`t0` and `handover` in seconds, `bandwidth` in bytes a second, one way; a token has KV of `token_bytes`."""

    queue: EventQueue
    t0: float
    bandwidth: float
    handover: float
    overlap: bool
    token_bytes: float
    layers: int
    free_at: float = 0.0

    def alone(self, tokens: int) -> float:
        """Seconds that so many tokens' KV takes on the idle link, nothing overlapped."""
        return self.t0 + tokens * self.token_bytes / self.bandwidth + self.handover

    def send(self, job: Job, now: float, computing: float, arrived: Callable[[float, Job], None]) -> None:
        """Calls `arrived(instant, job)` when the KV of the job's prompt, computed in `computing` seconds, is there."""
        size = job.todo * self.token_bytes
        if self.overlap:
            early = self.bandwidth * computing * (self.layers - 1) / self.layers
            size = max(size / self.layers, size - early)
        self.free_at = max(self.free_at, now + self.t0) + size / self.bandwidth
        self.queue.at(self.free_at + self.handover, arrived, job)


class Disaggregated:
    def __init__(self, prefill: Pool, link: Link, decode: Station, *, local_below: int = 0) -> None:
        self.prefill, self.link, self.decode, self.local_below = prefill, link, decode, local_below
        self.limit = min(prefill.limit, decode.limit)
        self.travelling: set[Job] = set()
        self.kept: set[Job] = set()  # computed by a prefill leg and not released

    def use(self) -> tuple[int, int, float]:
        """The KV memory is the decode pool's."""
        prefilling, waiting, _ = self.prefill.use()
        decoding, delayed, kv_share = self.decode.use()
        return prefilling + len(self.travelling) + decoding, waiting + delayed, kv_share

    def submit(self, job: Job, now: float) -> None:
        if job.prompt < self.local_below:
            self.decode.submit(job, now)
        else:
            self._compute(job, now, self._carry)

    def _compute(self, job: Job, now: float, then: Callable[[Job, float], None]) -> None:
        """The prefill pool computes the prompt; `then` is called in place of `job.done`."""
        done, job.prefill_only = job.done, True

        def prefilled(job: Job, now: float) -> None:
            job.done, job.prefill_only, job.handed = done, False, now
            then(job, now)

        job.done = prefilled
        self.prefill.submit(job, now)

    def _carry(self, job: Job, now: float) -> None:
        self.travelling.add(job)
        self.link.send(job, now, now - job.begun, self._arrived)

    def _arrived(self, now: float, job: Job) -> None:
        if job.prefill_worker >= 0:
            self.prefill.release(job, now)
        if job not in self.travelling:  # cancelled on the way
            return
        self.travelling.discard(job)
        job.transferred, job.prefilled = now, True
        self.decode.submit(job, now)

    # The two legs on their own, for a client that drives them both. They may be legs of two servers, which meet in
    # `handover`: the prefill leg keeps the KV until it is fetched, and for as long as a transfer takes.

    def prefill_leg(self, job: Job, now: float) -> None:
        """Computes the prompt; `job.done` is called when it is ready to be fetched."""
        self._compute(job, now, self._keep)

    def _keep(self, job: Job, now: float) -> None:
        job.first = job.last = now
        self.kept.add(job)
        self.prefill.queue.at(now + KEPT, self._forget, job)
        job.done(job, now)

    def fetched(self, job: Job, now: float) -> None:
        self.prefill.queue.at(now + self.link.alone(job.todo), self._forget, job)

    def _forget(self, now: float, job: Job) -> None:
        if job in self.kept:
            self.kept.discard(job)
            self.prefill.release(job, now)

    def decode_leg(self, job: Job, now: float) -> None:
        """Fetches the prompt's KV, which another server has computed, and decodes."""
        job.begun = job.handed = now
        self._carry(job, now)

    def cancel(self, job: Job, now: float) -> None:
        if job in self.travelling:
            self.travelling.discard(job)
        else:
            job.place.cancel(job, now)
