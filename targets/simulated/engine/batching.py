"""A GPU replica: continuous batching over a paged KV cache.

Theory of operation. Work goes in steps. Before each step, waiting jobs are admitted while a slot and the blocks of
their prompts are free; then the step is one of two kinds:

- a *mixed* step computes chunks of admitted prompts, at most `chunk` tokens less one for each decoding sequence, and
  with the policy `decode-first` one token of every decoding sequence too. With `prefill-first` decoding waits
  meanwhile.
- a *stretch* is any number of decode steps between which nothing can happen: it ends with the first sequence that is
  complete, or where the KV blocks run out. Its length has a closed form (roofline.py, paging.py), so virtual time
  costs the same for one step and for a thousand. A job that arrives and can be admitted cuts the stretch at the end
  of the step that is going on. In real time a stretch is one step (`longest`), because each token has to be sent at
  its instant.

Decoding sequences lie in a heap by the number of the step in which they end; nothing is done for each of them in a
step. Where a step can't get its blocks, the job that was admitted last gives its own up and waits, first in line, to
compute its prompt and the answer so far again (vLLM's preemption by recomputation).

`static` batching admits a batch only when the one before is complete. With `interval`, steps leave on a fixed beat
like trains, full or not. With a prefix cache (prefixes.py) a job's prompt begins where the cache ends. With
speculative decoding the tokens of each step are drawn when a sequence starts to decode; its KV blocks are then all
taken at once, because the residues of paging.py assume one token a step."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import ceil, inf

from .events import EventQueue
from .job import Job
from .journal import Journal
from .paging import BLOCK, Pages, blocks_for
from .prefix_cache import PrefixCache, TierSize
from .roofline import Roofline

IDLE, TURNING, MIXED, DECODING, PAUSED = range(5)
AHEAD = 1e-9  # seconds: an instant this close to the end of a step belongs to it


@dataclass(frozen=True, slots=True)
class Batching:
    """How a replica forms its steps. `kv_tokens`: what its KV cache holds; `interval`: seconds, 0 for none."""

    kv_tokens: float
    context: int
    max_batch: int = 256
    chunk: int = 8192
    decode_first: bool = True
    static: bool = False
    interval: float = 0.0
    acceptance: float = 0.0
    drafted: int = 0
    seed: int = 0
    prefix_cache: bool = False
    tiers: tuple[TierSize, ...] = ()


class Replica:
    """One GPU, or one tensor-parallel group of them."""

    def __init__(
        self,
        queue: EventQueue,
        roofline: Roofline,
        batching: Batching,
        *,
        longest: float = inf,
        journal: bool = False,
    ) -> None:
        self.queue, self.roofline, self.batching, self.longest = queue, roofline, batching, longest
        self.journal: Journal | None = Journal() if journal else None
        self.pages = Pages(batching.kv_tokens)
        self.cache = PrefixCache(self.pages, batching.tiers) if batching.prefix_cache else None
        self.waiting: deque[Job] = deque()
        self.prefilling: deque[Job] = deque()
        self.running: list[tuple[int, int, Job]] = []  # heap by (end step, number)
        self.held: set[Job] = set()  # prefilled for another pool, KV not yet fetched
        self.loading: set[Job] = set()  # admitted, part of their KV on its way from a tier
        self.worker = 0
        self.steps = 0  # decode steps since the start
        self.context = 0.0  # tokens of all decoding sequences together, in the next step
        self._state = IDLE
        self._began = 0.0
        self._stretch = 0  # steps of the stretch that is going on
        self._turn = 0  # events of an older turn are ignored
        self._chunks: list[tuple[Job, int]] = []
        self._decodes = False  # does the mixed step decode?

    # What others ask of it.

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.loading) + len(self.prefilling) + len(self.running)

    @property
    def queued(self) -> int:
        return len(self.waiting)

    @property
    def kv_use(self) -> float:
        return 1 - self.pages.free / self.pages.capacity

    @property
    def limit(self) -> int:
        return min(self.batching.context, self.pages.capacity * BLOCK)

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
        self._free(job)
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
            self._free(job)
        elif job in self.prefilling:
            self.prefilling.remove(job)
            self._chunks = [(other, tokens) for other, tokens in self._chunks if other is not job]
            self._free(job)
        else:
            self._cut(now)
            self.running.remove((job.end_step, job.number, job))
            heapify(self.running)
            self._leave(job)

    # One turn after the other.

    def _next(self, now: float) -> None:
        """Begins the next step or stretch at `now`, or rests."""
        self._state = TURNING
        if self.batching.interval and (self.waiting or self.prefilling or self.running):
            start = ceil(now / self.batching.interval - AHEAD) * self.batching.interval
            if start > now + AHEAD:
                self._state = PAUSED
                self._set(start, self._resume)
                return
        while self.waiting and self._admit(now):
            pass
        if self.prefilling:
            self._mixed(now)
        elif self.running:
            self._decode(now)
        else:
            self._state = IDLE

    def _set(self, instant: float, action: Callable[[float, int], None]) -> None:
        """The next turn; whatever was set before it is ignored."""
        self._turn += 1
        self.queue.at(self._on_beat(instant), action, self._turn)

    def _on_beat(self, instant: float) -> float:
        """A multiple of the interval exactly, so that no error adds up."""
        interval = self.batching.interval
        return round(instant / interval) * interval if interval else instant

    def _resume(self, now: float, turn: int) -> None:
        if turn == self._turn:
            self._next(now)

    # Admission.

    def _fits(self, job: Job) -> bool:
        if len(self.running) + len(self.prefilling) + len(self.loading) >= self.batching.max_batch:
            return False
        free = self.pages.free + (self.cache.idle_blocks if self.cache else 0)
        return blocks_for(self._footprint(job)) <= free

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
            seconds = self._allot(job)
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

    def _allot(self, job: Job) -> float:
        """Gives the job its blocks; returns the seconds until its cached KV is loaded from a tier, 0 for none."""
        seconds = 0.0
        if self.cache and not job.prefilled:
            seconds = self.cache.take(job)
        job.blocks = blocks_for(self._footprint(job)) - job.shared
        if self.cache:
            self.cache.make_room(job.blocks)
        self.pages.free -= job.blocks
        return seconds

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
        """The jobs' prompts are complete: each puts out a token and decodes from now on, if more are wanted."""
        going = []
        over = []
        for job in jobs:
            if job.first < 0:
                job.first = now
            if job.times is not None:
                job.times.append(now)
            job.left -= 1
            if job.left == 0:
                over.append(job)
                continue
            going.append(job)
            self._enter(job)
        if self.queue.emit and going:
            self.queue.emit(going, now)
        for job in over:
            self._free(job)
            self._finish(job, now)

    def _enter(self, job: Job) -> None:
        steps = job.left
        if self.batching.drafted:
            job.counts = self._draw(job)
            steps = len(job.counts)
        job.entered = self.steps
        job.end_step = self.steps + steps
        job.base = job.todo + 1 - self.steps
        if not self.batching.drafted:
            # What admission set aside covers the first step; paging counts from the next block on.
            self.pages.join(job.base)
            if (job.todo + 1) % BLOCK == 1:
                self.pages.free += 1
                job.blocks -= 1
        self.context += job.todo + 1
        heappush(self.running, (job.end_step, job.number, job))

    def _draw(self, job: Job) -> list[int]:
        """Tokens of each step until the answer is complete: 1 + accepted drafts, up to the first one refused."""
        draw = random.Random(self.batching.seed * 1_000_003 + job.number).random
        counts, left = [], job.left
        while left > 0:
            tokens = 1
            while tokens <= self.batching.drafted and draw() < self.batching.acceptance:
                tokens += 1
            counts.append(min(tokens, left))
            left -= tokens
        return counts

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
        context = self.context if decodes else 0.0
        seconds = self.roofline.mixed(decodes, context, tokens, squares, len(self._chunks), ending)
        self._state, self._began = MIXED, now
        self._set(now + self._beat(seconds), self._end_mixed)

    def _end_mixed(self, now: float, turn: int) -> None:
        if turn != self._turn:
            return
        self._state = TURNING
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
        staying = []
        for job in jobs:
            if self.cache:
                self.cache.adopt(job)
            if job.prefill_only:
                self.held.add(job)
                job.done(job, now)
            else:
                staying.append(job)
        if staying:
            self._join(staying, now)

    # Steps without.

    def _decode(self, now: float) -> None:
        steps = self._secure(min(self.running[0][0] - self.steps, self.longest))
        if not self.running:
            self._next(now)
            return
        decodes = len(self.running)
        seconds = self.roofline.span(decodes, self.context, steps)
        if self.batching.interval:
            beat = self._beat(self.roofline.decode(decodes, self.context))
            last = self._beat(self.roofline.decode(decodes, self.context + decodes * (steps - 1) * self.roofline.gain))
            steps = steps if beat == last else 1
            seconds = steps * beat
        self._state, self._began, self._stretch = DECODING, now, steps
        self._set(now + seconds, self._end_stretch)

    def _beat(self, seconds: float) -> float:
        """A step's length on the fixed beat."""
        interval = self.batching.interval
        return ceil(seconds / interval - AHEAD) * interval if interval else seconds

    def _cut(self, now: float) -> None:
        """Ends the stretch that is going on with the step that is going on."""
        if self._state != DECODING or self._stretch <= 1:
            return
        decodes, elapsed = len(self.running), max(now - self._began, AHEAD)
        if self.batching.interval:
            beat = self._beat(self.roofline.decode(decodes, self.context))
            steps = max(1, int(elapsed / beat))
            while self._on_beat(self._began + steps * beat) <= now:  # at a beat, the next step has just left
                steps += 1
            seconds = steps * beat
        else:
            steps = self.roofline.steps_by(decodes, self.context, elapsed)
            seconds = self.roofline.span(decodes, self.context, steps)
        if steps < self._stretch:
            self._stretch = steps
            self._set(self._began + seconds, self._end_stretch)

    def _end_stretch(self, now: float, turn: int) -> None:
        if turn != self._turn:
            return
        self._state = TURNING
        self._advance(self._stretch, now)
        self._next(now)

    def _advance(self, steps: int, now: float) -> None:
        """All decoding sequences have done `steps` steps; those that are complete leave."""
        running = self.running
        self.pages.free -= self.pages.need(self.steps, steps)
        if self.journal is not None:
            self._write(steps, now)
        self.steps += steps
        self.context += len(running) * steps * self.roofline.gain
        over = []
        while running and running[0][0] <= self.steps:
            job = heappop(running)[2]
            self._leave(job)
            job.left = 0
            over.append(job)
        if self.queue.emit and running:
            self.queue.emit([entry[2] for entry in running], now)
        for job in over:
            self._finish(job, now)

    def _write(self, steps: int, now: float) -> None:
        """The instants at which the steps that end now ended."""
        journal = self.journal
        assert journal is not None
        if steps > 1:
            decodes, context, at = len(self.running), self.context, self._began
            beat = self.batching.interval and (now - self._began) / steps
            for _ in range(steps - 1):
                at += beat or self.roofline.decode(decodes, context)
                context += decodes * self.roofline.gain
                journal.ends.append(at)
        journal.ends.append(now)
        if len(journal.ends) > 1 << 16:
            journal.forget(min((entry[2].entered for entry in self.running), default=self.steps))

    # KV blocks.

    def _secure(self, steps: float) -> int:
        """How many of the `steps` next decode steps there are blocks for: at least 1, by preemption if need be."""
        while self.running:
            if self.cache:
                self.cache.make_room(self.pages.need(self.steps, int(steps)))
            possible = self.pages.steps_possible(self.steps, int(steps))
            if possible:
                return possible
            self._preempt()
        return 0

    def _preempt(self) -> None:
        """The job that arrived last gives up its KV and goes back to the head of the line."""
        victim = max(self.running, key=lambda entry: entry[1])
        self.running.remove(victim)
        heapify(self.running)
        job = victim[2]
        job.left = job.end_step - self.steps
        self._leave(job)
        job.todo, job.filled, job.prefilled = job.prompt + job.output - job.left, 0, False
        job.preempted += 1
        self.waiting.appendleft(job)

    def _leave(self, job: Job) -> None:
        """Takes the job out of the decode batch's sums."""
        if self.journal is not None and job.times is not None:
            job.times.extend(self.journal.between(job.entered, self.steps))
        if self.batching.drafted:
            self.context -= job.todo + 1 + (self.steps - job.entered) * self.roofline.gain
        else:
            context = job.base + self.steps
            self.context -= context
            self.pages.leave(job.base)
            job.blocks = blocks_for(context - 1) - job.shared
        self._free(job)

    def _free(self, job: Job) -> None:
        if job.pins and self.cache:
            self.cache.drop(job)
        self.pages.free += job.blocks
        job.blocks = 0

    def _finish(self, job: Job, now: float) -> None:
        job.last = now
        job.done(job, now)
