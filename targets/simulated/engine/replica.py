"""A GPU replica: continuous batching over a paged KV cache; and a pool of replicas behind one address.

Theory of operation. Work goes in steps. Before each step, waiting jobs are admitted while a slot and the blocks of
their prompts are free; then the step is one of two kinds:

- a *mixed* step computes chunks of admitted prompts, at most `chunk` tokens less one for each decoding sequence, and
  with the policy `decode-first` one token of every decoding sequence too. With `prefill-first` decoding waits
  meanwhile.
- a *stretch* is any number of decode steps between which nothing can happen: it ends with the first sequence that is
  complete, or where the KV blocks run out. Its length has a closed form (batching.py, kv_memory.py), so virtual time
  costs the same for one step and for a thousand. A job that arrives and can be admitted cuts the stretch at the end
  of the step that is going on. In real time a stretch is one step (`longest`), because each token has to be sent at
  its instant.

`static` batching admits a batch only when the one before is complete. With `interval`, steps leave on a fixed beat
like trains, full or not. With a prefix cache a job's prompt begins where the cache ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from operator import attrgetter

from .batching import Batching, DecodeBatch, Roofline
from .job import EventQueue, Job
from .kv_memory import BLOCK, KvMemory

IDLE, TURNING, MIXED, DECODING, PAUSED = range(5)
TOLERANCE = 1e-9  # seconds: an instant this close to the end of a step belongs to it


class Replica:
    """One GPU, or one tensor-parallel group of them."""

    def __init__(self, queue: EventQueue, roofline: Roofline, batching: Batching) -> None:
        self.queue, self.roofline, self.batching = queue, roofline, batching
        self.memory = KvMemory(batching.kv_tokens, prefix_cache=batching.prefix_cache, tiers=batching.tiers)
        self.limit = min(batching.context, self.memory.pages.capacity * BLOCK)
        self.batch = DecodeBatch(batching, self.memory, roofline)
        self.running = self.batch.running
        self.waiting: deque[Job] = deque()
        self.prefilling: deque[Job] = deque()
        self.held: set[Job] = set()  # prefilled for another pool, KV not yet fetched
        self.loading: set[Job] = set()  # admitted, part of their KV on its way from a tier
        self.worker = 0
        self._state = IDLE
        self._began = 0.0
        self._stretch = 0  # steps of the stretch that is going on
        self._turn = 0  # events of an older turn are ignored
        self._chunks: list[tuple[Job, int]] = []
        self._decodes = False  # does the mixed step decode?

    # The station.

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.loading) + len(self.prefilling) + len(self.running)

    def use(self) -> tuple[int, int, float]:
        pages = self.memory.pages
        return self.load - len(self.waiting), len(self.waiting), 1 - pages.free / pages.capacity

    def submit(self, job: Job, now: float) -> None:
        job.place = self
        self.waiting.append(job)
        if self._state == IDLE:
            self._next(now)
        elif self._state == DECODING and len(self.waiting) == 1 and self._fits(job) and not self.batching.static:
            self._cut(now)

    def release(self, job: Job, now: float) -> None:
        """The other pool has fetched the job's KV: its blocks are free."""
        self.held.discard(job)
        self.memory.free(job)
        if self._state == IDLE:
            self._next(now)

    def cancel(self, job: Job, now: float) -> None:
        """Forgets the job; what is computed for it in the step that is going on is lost work."""
        if job in self.held:
            self.release(job, now)
        elif job in self.waiting:
            self.waiting.remove(job)
        elif job in self.loading:
            self.loading.discard(job)
            self.memory.free(job)
        elif job in self.prefilling:
            self.prefilling.remove(job)
            self._chunks = [(other, tokens) for other, tokens in self._chunks if other is not job]
            self.memory.free(job)
        else:
            self._cut(now)
            self.batch.remove(job)

    # One turn after the other.

    def _next(self, now: float) -> None:
        """Begins the next step or stretch at `now`, or rests."""
        self._state = TURNING
        if self.batching.interval and (self.waiting or self.prefilling or self.running):
            start = ceil(now / self.batching.interval - TOLERANCE) * self.batching.interval
            if start > now + TOLERANCE:
                self._state = PAUSED
                self._set(start, self._next)
                return
        while self.waiting and self._admit(now):
            pass
        if self.prefilling:
            self._mixed(now)
        elif self.running:
            self._decode(now)
        else:
            self._state = IDLE

    def _set(self, instant: float, action: Callable[[float], None]) -> None:
        """The next turn; whatever was set before it is ignored."""
        self._turn += 1
        self.queue.at(self._on_beat(instant), self._wake, (self._turn, action))

    def _wake(self, now: float, planned: tuple[int, Callable[[float], None]]) -> None:
        turn, action = planned
        if turn == self._turn:
            self._state = TURNING
            action(now)

    def _on_beat(self, instant: float) -> float:
        """A multiple of the interval exactly, so that no error adds up."""
        interval = self.batching.interval
        return round(instant / interval) * interval if interval else instant

    # Admission.

    def _fits(self, job: Job) -> bool:
        if len(self.running) + len(self.prefilling) + len(self.loading) >= self.batching.max_batch:
            return False
        return self.memory.fits(self._footprint(job))

    def _footprint(self, job: Job) -> int:
        """Tokens to admit it with: the prompt, and one so that it can take its first step."""
        if self.batching.drafted and not job.prefill_only:
            return job.todo + job.left
        return job.todo + 1

    def _admit(self, now: float) -> bool:
        """Takes in what fits; true if jobs joined the batch at once, and so may be over, and call for more."""
        if self.batching.static and (self.running or self.prefilling):
            return False
        joined = []
        while self.waiting and self._fits(self.waiting[0]):
            job = self.waiting.popleft()
            if job.begun < 0:
                job.begun = now
            seconds = self.memory.allot(job, self._footprint(job))
            if job.prefilled:
                joined.append(job)
            elif seconds:
                self.loading.add(job)
                self.queue.at(now + seconds, self._loaded, job)
            else:
                self.prefilling.append(job)
        if joined:
            self._join(joined, now)
        return bool(joined)

    def _loaded(self, now: float, job: Job) -> None:
        if job not in self.loading:  # cancelled
            return
        self.loading.discard(job)
        self.prefilling.append(job)
        if self._state == IDLE:
            self._next(now)
        else:
            self._cut(now)

    def _join(self, jobs: list[Job], now: float) -> None:
        """The jobs' prompts are complete: each puts out a token, and decodes from now on unless that was its last."""
        for job in jobs:
            if job.first < 0:
                job.first = now
            if job.times is not None:
                job.times.append(now)
            job.left -= 1
        decoding = [job for job in jobs if job.left]
        for job in decoding:
            self.batch.enter(job)
        if self.queue.emit and decoding:
            self.queue.emit(decoding, now)
        for job in jobs:
            if not job.left:
                self.memory.free(job)
                self._finish(job, now)

    # Steps with prompts in them.

    def _mixed(self, now: float) -> None:
        self._decodes = bool(self.running) and self.batching.decode_first and self._secure(1) > 0
        decodes = len(self.running) if self._decodes else 0
        budget = max(self.batching.chunk - decodes, 1)
        squares, tokens, ending = 0.0, 0, 0
        self._chunks = []
        for job in self.prefilling:
            part = min(job.todo - job.filled, budget - tokens)
            if part <= 0:
                break
            to = job.filled + part
            squares += to * to - job.filled * job.filled
            tokens += part
            ending += to == job.todo
            self._chunks.append((job, part))
        context = self.batch.context if decodes else 0.0
        seconds = self.roofline.mixed(decodes, context, tokens, squares, len(self._chunks), ending)
        self._state, self._began = MIXED, now
        self._set(now + self._beat(seconds), self._end_mixed)

    def _end_mixed(self, now: float) -> None:
        if self._decodes:
            self._advance(1, now)
        chunks, self._chunks, complete = self._chunks, [], []
        for job, part in chunks:
            job.filled += part
            if job.filled >= job.todo:
                self.prefilling.popleft()
                complete.append(job)
        if complete:
            self._complete(complete, now)
        self._next(now)

    def _complete(self, jobs: list[Job], now: float) -> None:
        staying = [job for job in jobs if not job.prefill_only]
        for job in jobs:
            if self.memory.cache:
                self.memory.cache.adopt(job)
            if job.prefill_only:
                self.held.add(job)
                job.done(job, now)
        self._join(staying, now)

    # Steps without.

    def _decode(self, now: float) -> None:
        steps = self._secure(min(self.running[0][0] - self.batch.steps, self.batching.longest))
        if not self.running:
            self._next(now)
            return
        decodes, context, roofline = len(self.running), self.batch.context, self.roofline
        seconds = roofline.span(decodes, context, steps)
        if self.batching.interval:
            beat = self._beat(roofline.decode(decodes, context))
            last = self._beat(roofline.decode(decodes, context + decodes * (steps - 1) * roofline.gain))
            steps = steps if beat == last else 1
            seconds = steps * beat
        self._state, self._began, self._stretch = DECODING, now, steps
        self._set(now + seconds, self._end_stretch)

    def _beat(self, seconds: float) -> float:
        """A step's length on the fixed beat."""
        interval = self.batching.interval
        return ceil(seconds / interval - TOLERANCE) * interval if interval else seconds

    def _cut(self, now: float) -> None:
        """Ends the stretch that is going on with the step that is going on."""
        if self._state != DECODING or self._stretch <= 1:
            return
        decodes, elapsed = len(self.running), max(now - self._began, TOLERANCE)
        if self.batching.interval:
            beat = self._beat(self.roofline.decode(decodes, self.batch.context))
            steps = max(1, int(elapsed / beat))
            while self._on_beat(self._began + steps * beat) <= now:  # at a beat, the next step has just left
                steps += 1
            seconds = steps * beat
        else:
            steps = self.roofline.steps_by(decodes, self.batch.context, elapsed)
            seconds = self.roofline.span(decodes, self.batch.context, steps)
        if steps < self._stretch:
            self._stretch = steps
            self._set(self._began + seconds, self._end_stretch)

    def _end_stretch(self, now: float) -> None:
        self._advance(self._stretch, now)
        self._next(now)

    def _advance(self, steps: int, now: float) -> None:
        complete = self.batch.advance(steps, self._began, now)
        if self.queue.emit and self.running:
            self.queue.emit([entry[2] for entry in self.running], now)
        for job in complete:
            self._finish(job, now)

    def _secure(self, steps: float) -> int:
        """How many of the `steps` next decode steps there are KV blocks for: at least 1, by preemption if need be."""
        while self.running:
            possible = self.memory.steps_possible(self.batch.steps, int(steps))
            if possible:
                return possible
            self.waiting.appendleft(self.batch.preempt())
        return 0

    def _finish(self, job: Job, now: float) -> None:
        job.last = now
        job.done(job, now)


class Pool:
    """Replicas behind one address: each job goes to the one with the fewest jobs."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas, self.queue, self.limit = replicas, replicas[0].queue, replicas[0].limit
        for worker, replica in enumerate(replicas):
            replica.worker = worker

    def use(self) -> tuple[int, int, float]:
        working, waiting, kv_shares = zip(*(replica.use() for replica in self.replicas), strict=True)
        return sum(working), sum(waiting), sum(kv_shares) / len(kv_shares)

    def submit(self, job: Job, now: float) -> None:
        replica = self.replicas[0] if len(self.replicas) == 1 else min(self.replicas, key=attrgetter("load"))
        if job.prefill_only:
            job.prefill_worker = replica.worker
        else:
            job.decode_worker = replica.worker
        replica.submit(job, now)

    def cancel(self, job: Job, now: float) -> None:
        job.place.cancel(job, now)

    def release(self, job: Job, now: float) -> None:
        self.replicas[job.prefill_worker].release(job, now)
