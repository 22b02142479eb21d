"""A replica's KV memory: paged blocks of 16 tokens, the prefix cache that lives in them, and the tiers below it.

Theory of operation. A decoding sequence takes a new block in every 16th step. Its context in step s is `base + s`, so
it takes one in the steps with s = 1 - base (mod 16). Counting sequences by that residue tells how many blocks any
stretch of steps will take, without looking at the sequences (`Pages`).

The prefix cache keeps the KV of prompts' leading blocks for later prompts that begin alike. A block is known by an id
that stands for all the text up to its end, so a prompt's cached part is the run of its leading ids that are there.
While jobs use a block it is pinned; unpinned blocks stay until their memory is needed, and the one unused for longest
goes first. It goes to the next tier down (CPU memory, then disk or a remote store), from where a later prompt loads
it at that tier's bandwidth instead of computing it (LMCache). Storing is asynchronous and costs nothing here.

Pinned and idle blocks count as used in `Pages`. A job's blocks are its own until its prompt is computed; then the
cache takes those of the prompt's blocks over (`adopt`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .job import Job

BLOCK = 16  # tokens

Prefix = tuple[tuple[int, int], ...]  # (id, tokens) of each leading block


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK)


class Pages:
    """`capacity` blocks, of which `free` are free; `takers[r]` sequences take one in the steps s = r (mod 16)."""

    __slots__ = ("capacity", "free", "sequences", "takers")

    def __init__(self, tokens: float) -> None:
        self.capacity = self.free = int(tokens // BLOCK)
        self.takers = [0] * BLOCK
        self.sequences = 0

    def join(self, base: int) -> None:
        self.takers[(1 - base) % BLOCK] += 1
        self.sequences += 1

    def leave(self, base: int) -> None:
        self.takers[(1 - base) % BLOCK] -= 1
        self.sequences -= 1

    def need(self, step: int, steps: int) -> int:
        """Blocks that steps `step` .. `step + steps - 1` take together."""
        rounds, rest = divmod(steps, BLOCK)
        total = rounds * self.sequences
        for s in range(step, step + rest):
            total += self.takers[s % BLOCK]
        return total

    def steps_possible(self, step: int, most: int) -> int:
        """How many steps, at most `most`, the first one being `step`, the free blocks allow."""
        if (most // BLOCK + 1) * self.sequences <= self.free:
            return most
        rounds = min(most // BLOCK, self.free // self.sequences)
        steps, left = rounds * BLOCK, self.free - rounds * self.sequences
        while steps < most:
            left -= self.takers[(step + steps) % BLOCK]
            if left < 0:
                break
            steps += 1
        return steps


def chain(words: Sequence[Any]) -> Prefix:
    """A prompt's full blocks of 16 tokens; each id depends on everything before it. Valid in this process only."""
    blocks, last = [], 0
    for end in range(BLOCK, len(words) + 1, BLOCK):
        last = hash((last, tuple(words[end - BLOCK : end])))
        blocks.append((last, BLOCK))
    return tuple(blocks)


@dataclass(frozen=True, slots=True)
class TierSize:
    """Tokens that a tier holds, and the seconds that loading one takes."""

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
        """Seconds to load one token of the block, from here or below; None where no tier has it."""
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
        """Pins the cached blocks of the job's prompt, sets its `cached` and `filled`; returns the seconds that loading
        from tiers takes. One token is always left to compute: the answer's first token comes out of it."""
        resident = loaded = 0
        seconds = 0.0
        for id, tokens in job.prefix:
            if resident + loaded + tokens > job.prompt:
                break
            if not loaded and (id in self.pinned or id in self.idle):
                self._pin(id, tokens)
                job.pins += 1
                job.shared += tokens // BLOCK
                resident += tokens
                continue
            cost = self.tier.seconds(id) if self.tier else None
            if cost is None:
                break
            loaded += tokens
            seconds += tokens * cost
        job.filled = min(resident + loaded, job.todo - 1)
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


class KvMemory:
    """The pages of a replica, and the prefix cache in them (`cache`: None without one). `tokens`: its capacity."""

    def __init__(self, tokens: float, *, prefix_cache: bool = False, tiers: Sequence[TierSize] = ()) -> None:
        self.pages = Pages(tokens)
        self.cache = PrefixCache(self.pages, tiers) if prefix_cache else None

    def fits(self, tokens: int) -> bool:
        return blocks_for(tokens) <= self.pages.free + (self.cache.idle_blocks if self.cache else 0)

    def allot(self, job: Job, tokens: int) -> float:
        """Gives the job blocks for `tokens`; returns the seconds until its cached KV is loaded from a tier, or 0."""
        seconds = 0.0
        if self.cache and not job.prefilled:
            seconds = self.cache.take(job)
        job.blocks = blocks_for(tokens) - job.shared
        if self.cache:
            self.cache.make_room(job.blocks)
        self.pages.free -= job.blocks
        return seconds

    def free(self, job: Job) -> None:
        """Takes the job's blocks back."""
        if job.pins and self.cache:
            self.cache.drop(job)
        self.pages.free += job.blocks
        job.blocks = 0

    def steps_possible(self, step: int, most: int) -> int:
        """How many decode steps there are blocks for, at most `most`; idle cached blocks give way."""
        if self.cache:
            self.cache.make_room(self.pages.need(step, most))
        return self.pages.steps_possible(step, most)
