"""The stations that are no GPU replica: GroqRack, and prefill pool -> KV link -> decode pool.

GroqRack is racks of a static pipeline, one request at a time each, no jitter:

    TPOT = P * t_stage        TTFT = (S + P - 1) * t_stage        P stages, S prompt tokens

The compiler has placed every layer on its chips; there is nothing to batch and nothing to wait for inside the rack,
so a request's every instant is known when its service begins. Several racks behind one address share one queue, first
come first served; with one rack and fixed lengths that is M/D/1 under Poisson arrivals. A job whose prompt was computed
elsewhere begins with its first token and takes one TPOT for each later one.

Where prefill and decode are apart, a prompt is computed in the prefill pool, which keeps the KV until the link has
carried it; then the decode pool takes the job in and puts out its first token (the prefill's) as soon as it has a place
for it, so TTFT is queue + prefill + transfer + the wait for that place. Prompts shorter than `local_below` skip all
that: the decode pool computes them itself, if it can.

The link carries a prompt's KV cache in

    t = t0 + bytes / bandwidth + handover

The bytes are the shared resource: transfers queue for it, first come first served. `t0` (set-up) and `handover` (the
schedulers' dealings) are latencies that overlap freely. With layer-wise overlap, what could travel while the prompt's
later layers were still computed is already there when the prompt is done; at least the last layer's share is left.
"""

from __future__ import annotations

from collections import deque
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
