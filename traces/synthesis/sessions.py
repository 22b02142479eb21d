"""Sessions of synthetic traces: which request follows which, and which prefix blocks they share. Two ways:

- `continued`: instants and lengths stand as drawn, so their distributions are exactly the workload's; a share of
  the requests is declared to continue an earlier one that is about `gap_ms` old and short enough. {"continue":
  share, "gap_ms": lengths, "block_tokens": n, "common": leading blocks that all requests share, "nest": share of
  the earlier prompt that comes again, "openings": {"count": n, "blocks": n, "requests": lengths}: what a request that
  repeats no more than the common blocks has next, one of `count` texts (a passage that was looked up, say), each
  in proportion to its `requests`}
- `grown`: whole sessions start by the arrival process and grow: agents. {"turns": lengths, "growth": lengths,
  "think_ms": lengths, "block_tokens": n, "most": tokens at which a context is compacted: it starts anew}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .lengths import MOST, MOST_MS, quantile

Whole = npt.NDArray[np.int64]
MS = 1_000_000
LOOK = 24  # neighbours in time, on each side, that are tried as a request's predecessor
ASSUMED_TPOT = 20 * MS  # of the planned instants of grown sessions; closed loops take the server's own time
MAX_TURNS = 10_000


def continued(
    spec: Mapping[str, Any], due: Whole, prompt: Whole, output: Whole, rng: np.random.Generator
) -> dict[str, Any]:
    """Columns session, turn, parent, think and prefix for requests that stand."""
    rows = len(due)
    rank = np.argsort(np.argsort(prompt, kind="stable")) / max(1, rows - 1)  # the longer, the likelier a continuation
    wish = rng.random(rows) < 2 * float(spec["continue"]) * rank
    target = due - quantile(spec["gap_ms"], rng.random(rows), 1, MOST_MS) * MS
    near = np.searchsorted(due, target)
    parent, session, turn = [-1] * rows, list(range(rows)), [0] * rows
    taken = [False] * rows
    lengths, said = prompt.tolist(), (prompt + output).tolist()
    for row in np.flatnonzero(wish & (target >= 0)).tolist():
        found = _before(int(near[row]), row, lengths[row], due, int(target[row]), said, taken)
        if found >= 0:
            taken[found] = True
            parent[row], session[row], turn[row] = found, session[found], turn[found] + 1
    return {
        "session": session,
        "turn": turn,
        "parent": parent,
        "think": [int(due[row] - due[before]) if before >= 0 else 0 for row, before in enumerate(parent)],
        "prefix": _nested(spec, parent, lengths, _openings(spec, rows, rng)),
    }


def _before(near: int, row: int, room: int, due: Whole, aim: int, length: list[int], taken: list[bool]) -> int:
    """The longest request within half a gap of the instant `aim` that has `room` for `row` to continue it; else the
    one closest to it; -1 for none."""
    fitting = [
        one for one in range(max(0, near - LOOK), min(row, near + LOOK)) if length[one] < room and not taken[one]
    ]
    off = {one: abs(int(due[one]) - aim) for one in fitting}
    half = (int(due[row]) - aim) // 2
    timely = [one for one in fitting if off[one] <= half]
    if timely:
        return max(timely, key=lambda one: length[one])
    return min(fitting, key=lambda one: off[one], default=-1)


def _openings(spec: Mapping[str, Any], rows: int, rng: np.random.Generator) -> list[range]:
    """For each request the blocks of a text that others begin with too, after the common ones."""
    if "openings" not in spec:
        return [range(0)] * rows
    openings = spec["openings"]
    count, blocks, common = int(openings["count"]), int(openings["blocks"]), int(spec.get("common", 0))
    popular = np.cumsum(quantile(openings["requests"], (np.arange(count) + 0.5) / count, 1))
    drawn = np.searchsorted(popular, rng.random(rows) * popular[-1], side="right")
    return [range(common + one * blocks, common + (one + 1) * blocks) for one in drawn.tolist()]


def _nested(
    spec: Mapping[str, Any], parent: list[int], prompt: list[int], openings: list[range]
) -> list[range | list[int]]:
    """Block ids: the common ones and an opening, or the predecessor's whole blocks, then new ones up to the end."""
    size, common, nest = int(spec["block_tokens"]), int(spec.get("common", 0)), float(spec.get("nest", 1.0))
    prefixes: list[Any] = []
    fresh = max((opening.stop for opening in openings), default=0) or common
    for row, length in enumerate(prompt):
        wanted = -(-length // size)
        again = prefixes[parent[row]][: int(nest * prompt[parent[row]] / size)] if parent[row] >= 0 else ()
        start = list(again) if len(again) > common else [*range(common), *openings[row]][:wanted]
        more = wanted - len(start)
        prefixes.append(start + list(range(fresh, fresh + more)))
        fresh += more
    return prefixes


def grown(
    spec: Mapping[str, Any], workload: Mapping[str, Any], starts: Whole, end: int, rng: np.random.Generator
) -> dict[str, Any]:
    """All columns of sessions that start at `starts` (ns); turns before 0 and after `end` are left
    out, and who followed one of them then follows nobody."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    fresh = 0
    for session, start in enumerate(starts.tolist()):
        parent = -1
        for turn, (due, prompt, output, think, blocks) in enumerate(_session(spec, workload, start, fresh, rng)):
            if due >= end:
                break
            fresh = blocks.stop
            if due >= 0:
                row = (due, prompt, output, session, turn, parent, think, blocks)
                parent = len(columns["due"])
                for name, value in zip(COLUMNS, row, strict=True):
                    columns[name].append(value)
        fresh += 1
    return _in_order(columns)


def _session(
    spec: Mapping[str, Any], workload: Mapping[str, Any], start: int, fresh: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, int, int, range]]:
    """The turns of a session, as (due, prompt, output, think, blocks); its blocks count from `fresh`."""
    size, most = int(spec["block_tokens"]), int(spec.get("most", 2**31 - 1))
    turns = int(min(MAX_TURNS, quantile(spec["turns"], rng.random(1), 1)[0]))
    prompts, outputs, growth, thinks = (
        quantile(source, rng.random(turns), 0, bound).tolist()
        for source, bound in (
            (workload["prompt"], MOST), (workload["output"], MOST), (spec["growth"], MOST), (spec["think_ms"], MOST_MS)
        )
    )  # fmt: skip
    due, length, blocks = start, 0, range(fresh, fresh)
    for turn in range(turns):
        think = thinks[turn] * MS if turn else 0
        due += think
        length += growth[turn]
        if not turn or length > most:
            length, blocks = max(1, min(most, prompts[turn])), range(blocks.stop, blocks.stop)
        blocks = range(blocks.start, blocks.start + length // size)
        output = max(1, outputs[turn])
        yield due, length, output, think, blocks
        due += output * ASSUMED_TPOT


def lead(spec: Mapping[str, Any], workload: Mapping[str, Any]) -> float:
    """Seconds before the trace's start from which sessions must have begun for it to start in full swing: four mean
    lifetimes."""
    even = (np.arange(1000) + 0.5) / 1000
    think, output = quantile(spec["think_ms"], even, 0, MOST_MS).mean(), quantile(workload["output"], even, 1).mean()
    return 4 * float(spec["mean_turns"]) * (float(think) / 1e3 + float(output) * ASSUMED_TPOT / 1e9)


COLUMNS = ("due", "prompt_tokens", "output_tokens", "session", "turn", "parent", "think", "prefix")


def _in_order(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Sorted by due; parents follow their rows."""
    order = np.argsort(np.array(columns["due"], np.int64), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    sorted_columns: dict[str, Any] = {name: [values[row] for row in order] for name, values in columns.items()}
    sorted_columns["parent"] = [int(place[parent]) if parent >= 0 else -1 for parent in sorted_columns["parent"]]
    sorted_columns["prefix"] = [list(blocks) for blocks in sorted_columns["prefix"]]
    return sorted_columns
