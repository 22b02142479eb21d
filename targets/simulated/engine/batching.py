"""How a replica batches: its settings, and the batch of sequences that decode together.

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
from math import inf

from .job import Job
from .kv_memory import BLOCK, KvMemory, TierSize, blocks_for
from .roofline import Roofline


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

    def jobs(self) -> list[Job]:
        return [entry[2] for entry in self.running]

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
