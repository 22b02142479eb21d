"""Prefix cache: the KV of prompts' leading blocks, kept for later prompts that begin alike; and the tiers below it.

A block is known by an id that stands for all the text up to its end, so a prompt's cached part is the run of its
leading ids that are there. While jobs use a block it is pinned; unpinned blocks stay until their memory is needed, and
the one unused for longest goes first. What goes, goes to the next tier down (CPU memory, then disk or a remote
store), from where a later prompt loads it at that tier's bandwidth instead of computing it (LMCache). Storing is
asynchronous and costs nothing here.

Memory: pinned and idle blocks count as used in `Pages`. A job's blocks are its own until its prompt is computed; then
the cache takes those of the prompt's blocks over (`adopt`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .job import Job
from .paging import BLOCK, Pages

Prefix = tuple[tuple[int, int], ...]  # (id, tokens) of each leading block


def chain(words: Sequence[Any]) -> Prefix:
    """A prompt's full blocks of 16 tokens; each id depends on everything before it. Valid in this process only."""
    found, last = [], 0
    for end in range(BLOCK, len(words) + 1, BLOCK):
        last = hash((last, tuple(words[end - BLOCK : end])))
        found.append((last, BLOCK))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class TierSize:
    """Tokens that it holds, and the seconds that loading one takes."""

    tokens: float
    seconds: float


class Tier:
    """One store below the GPU's memory, least recently used out first; what falls out goes to `below`."""

    def __init__(self, size: TierSize, below: Tier | None) -> None:
        self.size, self.below = size, below
        self.used = 0
        self.blocks: OrderedDict[int, int] = OrderedDict()

    def put(self, id: int, tokens: int) -> None:
        if id in self.blocks:
            self.blocks.move_to_end(id)
            return
        self.blocks[id] = tokens
        self.used += tokens
        while self.used > self.size.tokens:
            old, size = self.blocks.popitem(last=False)
            self.used -= size
            if self.below:
                self.below.put(old, size)

    def seconds(self, id: int) -> float | None:
        """What a token of the block takes to load, from here or below; None where it is nowhere."""
        if id in self.blocks:
            self.blocks.move_to_end(id)
            return self.size.seconds
        return self.below.seconds(id) if self.below else None


class PrefixCache:
    def __init__(self, pages: Pages, sizes: Sequence[TierSize] = ()) -> None:
        self.pages = pages
        self.pinned: dict[int, int] = {}  # id -> jobs that use it
        self.idle: OrderedDict[int, int] = OrderedDict()  # id -> tokens, the longest unused first
        self.idle_blocks = 0
        self.tier: Tier | None = None
        for size in reversed(sizes):
            self.tier = Tier(size, self.tier)

    def take(self, job: Job) -> float:
        """Pins what the job's prompt finds, sets its `cached` and `filled`; returns the seconds of loading from tiers.

        One token is always left to compute: the answer's first token comes out of it.
        """
        found = loaded = 0
        seconds = 0.0
        for id, tokens in job.prefix:
            if found + loaded + tokens > job.prompt:
                break
            if not loaded and (id in self.pinned or id in self.idle):
                self._pin(id, tokens)
                job.pins += 1
                job.shared += tokens // BLOCK
                found += tokens
                continue
            cost = self.tier.seconds(id) if self.tier else None
            if cost is None:
                break
            loaded += tokens
            seconds += tokens * cost
        job.filled = min(found + loaded, job.todo - 1)
        job.cached = max(job.cached, job.filled)
        return seconds

    def adopt(self, job: Job) -> None:
        """The job's prompt is computed: its full blocks are the cache's from now on, and the job's among others."""
        end = sum(tokens for _, tokens in job.prefix[: job.pins])
        for id, tokens in job.prefix[job.pins :]:
            end += tokens
            if end > job.prompt:
                break
            blocks = tokens // BLOCK
            if id in self.pinned or id in self.idle:  # another job has computed it meanwhile
                self.pages.free += blocks
            self._pin(id, tokens)
            job.pins += 1
            job.shared += blocks
            job.blocks -= blocks

    def drop(self, job: Job) -> None:
        """The job is over or preempted. Later blocks go first, because they are worth nothing without earlier ones."""
        for id, tokens in reversed(job.prefix[: job.pins]):
            self.pinned[id] -= 1
            if not self.pinned[id]:
                del self.pinned[id]
                self.idle[id] = tokens
                self.idle_blocks += tokens // BLOCK
        job.pins = job.shared = 0

    def make_room(self, blocks: int) -> None:
        """Lets idle blocks go until `blocks` are free, or none is left."""
        while self.pages.free < blocks and self.idle:
            id, tokens = self.idle.popitem(last=False)
            self.idle_blocks -= tokens // BLOCK
            self.pages.free += tokens // BLOCK
            if self.tier:
                self.tier.put(id, tokens)

    def _pin(self, id: int, tokens: int) -> None:
        if id in self.idle:
            del self.idle[id]
            self.idle_blocks -= tokens // BLOCK
        self.pinned[id] = self.pinned.get(id, 0) + 1
