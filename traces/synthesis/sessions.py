"""Sessions of synthetic traces: which request follows which, and which prefix blocks they share. Two ways:

- `Continued`: instants and lengths stand as drawn, so their distributions are exactly the workload's; a share of
  the requests is declared to continue an earlier one that is about `gap_ms` old and short enough.
- `Grown`: whole sessions start by the arrival process and grow: agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..trace import ASSUMED_TPOT, NS_PER_MS, NS_PER_S, SCHEMA, Columns, Whole, in_order
from ..typed_json import LEFT_OUT, named
from .lengths import MOST, MOST_MS, Lengths, quantile

LOOK = 24  # neighbours in time, on each side, that are tried as a request's predecessor
MAX_TURNS = 10_000
COLUMNS = ("due", "prompt_tokens", "output_tokens", "session", "turn", "parent", "think", "prefix")


@dataclass(frozen=True)
class Openings:
    """What a request that repeats no more than the common blocks has next: one of `count` texts of `blocks` blocks (a
    passage that was looked up, say), each drawn in proportion to its `requests`."""

    count: int
    blocks: int
    requests: Lengths


@dataclass(frozen=True)
class Continued:
    """`share` of the requests continue an earlier one about `gap_ms` old. `common`: leading blocks that all requests
    have; `nest`: share of the earlier prompt that comes again."""

    gap_ms: Lengths
    block_tokens: int
    share: float = field(metadata=named("continue"))
    common: int = 0
    nest: float = 1.0
    openings: Openings | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Grown:
    """`turns` a session, each longer than the one before by `growth` tokens, after `think_ms`; `most`: tokens at which
    a context is compacted, so that it starts anew."""

    turns: Lengths
    mean_turns: float
    growth: Lengths
    think_ms: Lengths
    block_tokens: int
    most: int = MOST


def continued(sessions: Continued, due: Whole, prompt: Whole, output: Whole, rng: np.random.Generator) -> Columns:
    """Columns session, turn, parent, think and prefix for requests that stand."""
    rows = len(due)
    rank = np.argsort(np.argsort(prompt, kind="stable")) / max(1, rows - 1)  # the longer, the likelier a continuation
    wish = rng.random(rows) < 2 * sessions.share * rank
    target = due - quantile(sessions.gap_ms, rng.random(rows), 1, MOST_MS) * NS_PER_MS
    near = np.searchsorted(due, target)
    parent, session, turn = [-1] * rows, list(range(rows)), [0] * rows
    taken = [False] * rows
    lengths, answered = prompt.tolist(), (prompt + output).tolist()
    for row in np.flatnonzero(wish & (target >= 0)).tolist():
        before = _before(int(near[row]), row, lengths[row], due, int(target[row]), answered, taken)
        if before >= 0:
            taken[before] = True
            parent[row], session[row], turn[row] = before, session[before], turn[before] + 1
    return {
        "session": session,
        "turn": turn,
        "parent": parent,
        "think": [int(due[row] - due[before]) if before >= 0 else 0 for row, before in enumerate(parent)],
        "prefix": _nested(sessions, parent, lengths, _openings(sessions, rows, rng)),
    }


def _before(near: int, row: int, room: int, due: Whole, aim: int, length: list[int], taken: list[bool]) -> int:
    """The longest request within half a gap of the instant `aim` that has `room` for `row` to continue it; else the
    one closest to it; -1 for none."""
    neighbours = range(max(0, near - LOOK), min(row, near + LOOK))
    fitting = [earlier for earlier in neighbours if length[earlier] < room and not taken[earlier]]
    off = {earlier: abs(int(due[earlier]) - aim) for earlier in fitting}
    half = (int(due[row]) - aim) // 2
    timely = [earlier for earlier in fitting if off[earlier] <= half]
    if timely:
        return max(timely, key=lambda earlier: length[earlier])
    return min(fitting, key=lambda earlier: off[earlier], default=-1)


def _openings(sessions: Continued, rows: int, rng: np.random.Generator) -> list[range]:
    """For each request the blocks of a text that others begin with too, after the common ones."""
    if sessions.openings is None:
        return [range(0)] * rows
    count, blocks, common = sessions.openings.count, sessions.openings.blocks, sessions.common
    popular = np.cumsum(quantile(sessions.openings.requests, (np.arange(count) + 0.5) / count, 1))
    drawn = np.searchsorted(popular, rng.random(rows) * popular[-1], side="right")
    return [range(common + text * blocks, common + (text + 1) * blocks) for text in drawn.tolist()]


def _nested(
    sessions: Continued, parent: list[int], prompt: list[int], openings: list[range]
) -> list[range | list[int]]:
    """Block ids: the common ones and an opening, or the predecessor's whole blocks, then new ones up to the end."""
    size, common, nest = sessions.block_tokens, sessions.common, sessions.nest
    prefixes: list[Any] = []
    fresh = max((opening.stop for opening in openings), default=0) or common
    for row, length in enumerate(prompt):
        blocks = -(-length // size)
        again = prefixes[parent[row]][: int(nest * prompt[parent[row]] / size)] if parent[row] >= 0 else ()
        start = list(again) if len(again) > common else [*range(common), *openings[row]][:blocks]
        more = blocks - len(start)
        prefixes.append(start + list(range(fresh, fresh + more)))
        fresh += more
    return prefixes


def grown(
    sessions: Grown, lengths: tuple[Lengths, Lengths], starts: Whole, end: int, rng: np.random.Generator
) -> Columns:
    """All columns of sessions that start at `starts` (ns); turns before 0 and after `end` (ns) are left out, and who
    followed one of them then follows nobody. `lengths`: of prompts and of outputs."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    fresh = 0
    for session, start in enumerate(starts.tolist()):
        parent = -1
        for turn, (due, prompt, output, think, blocks) in enumerate(_session(sessions, lengths, start, fresh, rng)):
            if due >= end:
                break
            fresh = blocks.stop
            if due >= 0:
                row = (due, prompt, output, session, turn, parent, think, blocks)
                parent = len(columns["due"])
                for name, value in zip(COLUMNS, row, strict=True):
                    columns[name].append(value)
        fresh += 1
    columns["prefix"] = [list(blocks) for blocks in columns["prefix"]]
    return in_order({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})


def _session(
    sessions: Grown, lengths: tuple[Lengths, Lengths], start: int, fresh: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, int, int, range]]:
    """The turns of a session, as (due, prompt, output, think, blocks); its blocks count from `fresh`."""
    size, most = sessions.block_tokens, sessions.most
    turns = int(min(MAX_TURNS, quantile(sessions.turns, rng.random(1), 1)[0]))
    prompts, outputs, growth, thinks = (
        quantile(source, rng.random(turns), 0, bound).tolist()
        for source, bound in (
            (lengths[0], MOST), (lengths[1], MOST), (sessions.growth, MOST), (sessions.think_ms, MOST_MS)
        )
    )  # fmt: skip
    due, length, blocks = start, 0, range(fresh, fresh)
    for turn in range(turns):
        think = thinks[turn] * NS_PER_MS if turn else 0
        due += think
        length += growth[turn]
        if not turn or length > most:
            length, blocks = max(1, min(most, prompts[turn])), range(blocks.stop, blocks.stop)
        blocks = range(blocks.start, blocks.start + length // size)
        output = max(1, outputs[turn])
        yield due, length, output, think, blocks
        due += output * ASSUMED_TPOT


def run_up(sessions: Grown, output: Lengths) -> float:
    """Seconds before the trace's start from which sessions must have begun for it to start in full swing: four mean
    lifetimes."""
    even = (np.arange(1000) + 0.5) / 1000
    think, tokens = quantile(sessions.think_ms, even, 0, MOST_MS).mean(), quantile(output, even, 1).mean()
    return 4 * sessions.mean_turns * (float(think) / 1e3 + float(tokens) * ASSUMED_TPOT / NS_PER_S)
