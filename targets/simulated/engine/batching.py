"""The steps of a GPU replica: how long each takes, its settings, and the batch of sequences that decode together.

Step time is the roofline with overheads that was fitted to LLM-Inference-Bench:

    step = max((W + kv * C) / (BW * MBU), flops / (peak * MFU)) + c0 + c1 * sequences
    W = w (P - E)                            weight bytes read, w bytes a weight, E embedding parameters
    flops of B decodes  = 2 (P - E) B + 4 h L C                       C: sum of the contexts
    flops of a prefill  = 2 (P - 2E) tokens + 2 h L (to^2 - from^2) + 2 E (for the one token that comes out)

A chunk of a prompt, tokens `from` to `to`, telescopes to the whole prompt's attention. Tensor parallelism divides the
weights and the work and adds two all-reduces a layer. Speculative decoding verifies `draft` + 1 tokens a sequence a
step, and the drafting itself costs `draft_cost` a drafted token.

With B fixed, C grows by the same amount each step, so both branches of the maximum are linear in the step number: a
stretch of n steps has a closed form (`span`) and so has its inverse (`steps_by`).

Decoding sequences lie in a heap by the number of the step in which they end; nothing is done for each of them in a
step. When a step can't get its KV blocks, the job that was admitted last gives its own up and waits, first in line, to
compute its prompt and the answer so far again (vLLM's preemption by recomputation).

With speculative decoding the tokens of each step are drawn when a sequence starts to decode; its KV blocks are then
all taken at once, because the residues of kv_memory.py assume one token a step.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf, sqrt

from .job import Job
from .kv_memory import BLOCK, KvMemory, TierSize, blocks_for


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds, each per unit: of weights, of a context token (memory, compute), of a decoded and a prefilled token."""

    weights: float
    kv: float
    attention: float
    decoded: float
    prefilled: float
    head: float
    c0: float
    c1: float
    reduce: float = 0.0  # all-reduce seconds a token
    gain: float = 1.0  # tokens a sequence a step
    verified: int = 1  # tokens a sequence computes a step
    draft: float = 0.0  # seconds a step for drafting

    def mixed(
        self, decodes: int, context: float, tokens: float, squares: float, prompts: float, ending: float
    ) -> float:
        """One step: `decodes` sequences of `context` tokens together, and chunks of `prompts` prompts. `tokens` in the
        chunks, `squares` the sum of to^2 - from^2 over them, `ending` prompts complete with this step."""
        computed = decodes * self.verified
        compute = self.decoded * computed + self.attention * context * self.verified
        compute += self.prefilled * tokens + self.attention * 0.5 * squares + self.head * ending
        memory = self.weights + self.kv * context
        fixed = self.c0 + self.c1 * (decodes + prompts) + self.reduce * (computed + tokens)
        return (memory if memory > compute else compute) + fixed + (self.draft if decodes else 0.0)

    def decode(self, decodes: int, context: float) -> float:
        return self.span(decodes, context, 1)

    def span(self, decodes: int, context: float, steps: int) -> float:
        """`steps` decode steps in a row, the first one at `context` tokens together."""
        work = self.decoded * decodes * self.verified
        attention = self.attention * self.verified
        memory = self.weights + self.kv * context
        compute = work + attention * context
        total = steps * (self.c0 + self.draft + (self.c1 + self.reduce * self.verified) * decodes)
        growth = decodes * self.gain
        later = context + growth * (steps - 1)
        memory_later = self.weights + self.kv * later
        compute_later = work + attention * later
        if memory >= compute and memory_later >= compute_later:
            return total + 0.5 * steps * (memory + memory_later)
        if compute >= memory and compute_later >= memory_later:
            return total + 0.5 * steps * (compute + compute_later)
        # The two lines cross inside the stretch: the first `turn` steps lie on one, the others on the other.
        crossing = (self.weights - work) / (attention - self.kv)
        turn = min(steps - 1, int((crossing - context) / growth) + 1)
        middle = context + growth * turn
        before, after = (self.kv, self.weights), (attention, work)
        if compute > memory:
            before, after = after, before
        total += turn * (before[1] + before[0] * 0.5 * (context + middle - growth))
        return total + (steps - turn) * (after[1] + after[0] * 0.5 * (middle + later))

    def steps_by(self, decodes: int, context: float, seconds: float) -> int:
        """The step that is going on, or just ends, `seconds` (> 0) after the first one began; counted from 1."""
        first = self.span(decodes, context, 1)
        slope = self.span(decodes, context, 2) - 2 * first
        if slope > first * 1e-9:
            half = first - 0.5 * slope
            guess = int((sqrt(half * half + 2 * slope * seconds) - half) / slope) + 1
        else:
            guess = int(seconds / first) + 1
        while self.span(decodes, context, guess) < seconds:
            guess += 1
        while guess > 1 and self.span(decodes, context, guess - 1) >= seconds:
            guess -= 1
        return guess


@dataclass(frozen=True, slots=True)
class Batching:
    """How a replica forms its steps. `kv_tokens`: what its KV cache holds; `interval`: seconds, 0 for none; `longest`:
    steps of a stretch, 1 in real time; `journal`: are the instants of all tokens kept?"""

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
    longest: float = inf
    journal: bool = False

    def draw(self, job: Job) -> list[int]:
        """Tokens of each step until the job's answer is complete: 1 + accepted drafts, up to the first one refused."""
        draw = random.Random(self.seed * 1_000_003 + job.number).random
        counts, left = [], job.left
        while left > 0:
            tokens = 1
            while tokens <= self.drafted and draw() < self.acceptance:
                tokens += 1
            counts.append(min(tokens, left))
            left -= tokens
        return counts


class DecodeBatch:
    """The sequences that decode: `running` is a heap of (end step, job number, job). `steps`: decode steps since the
    start; `context`: tokens of all sequences together, in the next step; `ends`, the journal: when step `since` and
    those after it ended, from which the instants of every token are read."""

    __slots__ = ("batching", "context", "ends", "memory", "roofline", "running", "since", "steps")

    def __init__(self, batching: Batching, memory: KvMemory, roofline: Roofline) -> None:
        self.batching, self.memory, self.roofline = batching, memory, roofline
        self.running: list[tuple[int, int, Job]] = []
        self.steps = self.since = 0
        self.context = 0.0
        self.ends: array[float] = array("d")

    def enter(self, job: Job) -> None:
        """The job's prompt is complete and its first token is out."""
        steps = job.left
        if self.batching.drafted:
            job.counts = self.batching.draw(job)
            steps = len(job.counts)
        job.entered = self.steps
        job.end_step = self.steps + steps
        job.base = job.todo + 1 - self.steps
        if not self.batching.drafted:
            # What admission set aside covers the first step; the pages count from the next block on.
            self.memory.pages.join(job.base)
            if (job.todo + 1) % BLOCK == 1:
                self.memory.pages.free += 1
                job.blocks -= 1
        self.context += job.todo + 1
        heappush(self.running, (job.end_step, job.number, job))

    def remove(self, job: Job) -> None:
        """Takes a job out before its end."""
        self.running.remove((job.end_step, job.number, job))
        heapify(self.running)
        self._leave(job)

    def preempt(self) -> Job:
        """The job that arrived last gives up its KV; returned as it has to be computed again."""
        job = max(self.running, key=lambda entry: entry[1])[2]
        job.left = job.end_step - self.steps
        self.remove(job)
        job.todo, job.filled, job.prefilled = job.prompt + job.output - job.left, 0, False
        job.preempted += 1
        return job

    def advance(self, steps: int, begun: float, now: float) -> list[Job]:
        """All sequences have done `steps` steps from `begun` to `now`; the complete ones leave and are returned."""
        running, pages = self.running, self.memory.pages
        pages.free -= pages.need(self.steps, steps)
        if self.batching.journal:
            self._write(steps, begun, now)
        self.steps += steps
        self.context += len(running) * steps * self.roofline.gain
        complete = []
        while running and running[0][0] <= self.steps:
            job = heappop(running)[2]
            self._leave(job)
            job.left = 0
            complete.append(job)
        return complete

    def _write(self, steps: int, begun: float, now: float) -> None:
        """The instants at which the steps that end now ended."""
        decodes, context, at = len(self.running), self.context, begun
        beat = self.batching.interval and (now - begun) / steps
        for _ in range(steps - 1):
            at += beat or self.roofline.decode(decodes, context)
            context += decodes * self.roofline.gain
            self.ends.append(at)
        self.ends.append(now)
        if len(self.ends) > 1 << 16:  # what will not be read again goes
            needed = min((entry[2].entered for entry in self.running), default=self.steps)
            del self.ends[: needed - self.since]
            self.since = needed

    def _leave(self, job: Job) -> None:
        """Takes the job out of the sums."""
        if job.times is not None:
            job.times.extend(self.ends[job.entered - self.since : self.steps - self.since])
        if self.batching.drafted:
            self.context -= job.todo + 1 + (self.steps - job.entered) * self.roofline.gain
        else:
            context = job.base + self.steps
            self.context -= context
            self.memory.pages.leave(job.base)
            job.blocks = blocks_for(context - 1) - job.shared
        self.memory.free(job)
