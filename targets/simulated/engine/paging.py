"""Paged KV memory of a replica: blocks of 16 tokens, and when a decode batch will have run out of them.

A sequence takes a new block in every 16th step. Its context in step s is `base + s`, so it takes one in the steps with
s = 1 - base (mod 16). Counting sequences by that residue tells how many blocks any stretch of steps will take,
without looking at the sequences.
"""

from __future__ import annotations

BLOCK = 16


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

    def steps_possible(self, step: int, wanted: int) -> int:
        """How many of the `wanted` steps, the first one being `step`, the free blocks allow."""
        if (wanted // BLOCK + 1) * self.sequences <= self.free:
            return wanted
        rounds = min(wanted // BLOCK, self.free // self.sequences)
        steps, left = rounds * BLOCK, self.free - rounds * self.sequences
        while steps < wanted:
            left -= self.takers[(step + steps) % BLOCK]
            if left < 0:
                break
            steps += 1
        return steps
