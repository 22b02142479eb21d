"""Shapes that add requests: merge, repeat, superpose; and thinning, which with them scales the rate.

Requests are numbered anew, sessions stay apart. A copy of a request is another user's: blocks of text that several
sessions shared (a system prompt) stay shared with the copy, private ones don't, or a prefix cache would hit what no
real one could.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import InputError
from .trace import DEFAULTS, Trace, build

Whole = npt.NDArray[np.int64]


def merge(traces: list[Trace]) -> Trace:
    """Several traces that start together; their blocks and sessions have nothing in common."""
    if not traces:
        raise InputError("expected at least one trace", where="merge")
    whole = _together(
        [_blocks_from(trace, number << 40, trace.column("index") < 0) for number, trace in enumerate(traces)]
    )
    return whole.noted("merge " + ", ".join(trace.name for trace in traces))


def repeat(trace: Trace, times: int) -> Trace:
    """The trace `times` times in a row, a mean gap between the end of one and the start of the next."""
    if times < 1:
        raise InputError(f"expected at least 1, got {times}", where="repeat")
    lap = trace.span + trace.span // max(1, len(trace) - 1)
    copies = [
        copy.with_columns(due=copy.column("due") + number * lap) for number, copy in enumerate(_copies(trace, times))
    ]
    return _together(copies).noted(f"repeat {times}")


def scale_rate(trace: Trace, factor: float, seed: int = 0) -> Trace:
    """The same process at another rate: below 1 by leaving sessions out at random, above it by superposing copies, each
    turned around in time by a random amount. Unlike `speed`, the burstiness on each time scale stays."""
    if not 0 < factor <= 1000:
        raise InputError(f"expected a factor above 0, got {factor}", where="scale rate")
    rng = np.random.default_rng((seed, 5))
    whole = int(factor)
    copies = [copy if not number else _turned(copy, rng) for number, copy in enumerate(_copies(trace, whole + 1))]
    last = copies.pop()
    if factor > whole:
        copies.append(_thinned(last if whole else trace, factor - whole, rng))
    if len(copies) == 1 and not whole:
        return copies[0].noted(f"rate x {factor:g}")
    return _together(copies).noted(f"rate x {factor:g}")


def _thinned(trace: Trace, share: float, rng: np.random.Generator) -> Trace:
    """A random share of the sessions; requests without one go by themselves."""
    owners, where = np.unique(_owners(trace), return_inverse=True)
    return trace.take(rng.random(len(owners))[where] < share)


def _turned(trace: Trace, rng: np.random.Generator) -> Trace:
    """The trace begun at a random instant of it; what comes before follows its end. A session that the cut goes through
    becomes two."""
    lap = trace.span + 1
    due = trace.column("due") + rng.integers(0, lap)
    early = due >= lap
    turned = trace.with_columns(due=due % lap)
    if "session" in trace.table.column_names:
        session = trace.column("session")
        turned = turned.with_columns(session=np.where(early & (session >= 0), session + session.max() + 1, session))
    if "parent" in trace.table.column_names:
        index, parent = trace.column("index"), trace.column("parent")
        cut = early & ~np.isin(parent, index[early])
        turned = turned.with_columns(parent=np.where(cut, -1, parent))
    return turned


def _owners(trace: Trace) -> Whole:
    session = trace.column("session")
    return np.where(session >= 0, session, -2 - np.arange(len(trace)))


def _copies(trace: Trace, count: int) -> list[Trace]:
    """The trace and copies of it with private blocks of their own."""
    private = _private(trace)
    return [trace, *(_blocks_from(trace, number << 40, private) for number in range(1, count))]


def _private(trace: Trace) -> npt.NDArray[np.bool_]:
    """For each entry of the trace's prefixes: is its block one session's alone?"""
    offsets, ids = trace.prefixes()
    owners = np.repeat(_owners(trace), np.diff(offsets))
    _, where = np.unique(ids, return_inverse=True)
    low, high = np.full(len(ids), np.iinfo(np.int64).max), np.full(len(ids), np.iinfo(np.int64).min)
    np.minimum.at(low, where, owners)
    np.maximum.at(high, where, owners)
    return np.asarray((low == high)[where])


def _blocks_from(trace: Trace, base: int, chosen: npt.NDArray[np.bool_]) -> Trace:
    """Blocks numbered from `base`: those `chosen` (by prefix entry), or all if `chosen` has another length."""
    if not trace.has_prefixes:
        return trace
    offsets, ids = trace.prefixes()
    chosen = chosen if len(chosen) == len(ids) else np.ones(len(ids), bool)
    known, ranks = np.unique(ids, return_inverse=True)
    renamed = np.where(chosen, base + ranks, ids)
    prefix = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(renamed, pa.int64()))
    table = trace.table.set_column(trace.table.schema.get_field_index("prefix"), "prefix", prefix)
    sizes = trace.block_tokens
    if isinstance(sizes, int):
        return trace.with_table(table)
    named = dict(sizes) | {
        base + rank: sizes[int(block)] for rank, block in enumerate(known.tolist()) if int(block) in sizes
    }
    return Trace(table, trace.name, named, trace.source, trace.transforms, trace.notes)


def _together(traces: list[Trace]) -> Trace:
    """One trace of all requests, by due; indices, parents and sessions numbered anew."""
    columns: dict[str, list[Any]] = {name: [] for name in ("due", "prompt_tokens", "output_tokens")}
    for name in (*DEFAULTS, "prefix"):
        if any(name in trace.table.column_names for trace in traces):
            columns[name] = []
    rows = sessions = 0
    for trace in traces:
        for name, parts in columns.items():
            if name == "prefix":
                offsets, ids = trace.prefixes()
                parts.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids, pa.int64())))
            elif name == "parent":
                place = {index: rows + row for row, index in enumerate(trace.column("index").tolist())}
                parts.append(np.array([place.get(one, -1) for one in trace.column("parent").tolist()], np.int64))
            elif name == "session":
                session = trace.column("session")
                parts.append(np.where(session >= 0, session + sessions, -1))
                sessions += int(session.max(initial=-1)) + 1
            else:
                parts.append(trace.column(name))
        rows += len(trace)
    return _sorted(
        {name: parts if name == "prefix" else np.concatenate(parts) for name, parts in columns.items()}, traces
    )


def _sorted(columns: dict[str, Any], traces: list[Trace]) -> Trace:
    order = np.argsort(columns["due"], kind="stable")
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1  # a parent of -1 stays -1
    for name, values in columns.items():
        columns[name] = pa.concat_arrays(values).take(pa.array(order)) if name == "prefix" else values[order]
    if "parent" in columns:
        columns["parent"] = place[columns["parent"]]
    first = traces[0]
    whole = build(columns, name=first.name, block_tokens=_sizes(traces), source=first.source, notes=first.notes)
    return Trace(whole.table, whole.name, whole.block_tokens, whole.source, first.transforms, whole.notes)


def _sizes(traces: list[Trace]) -> int | dict[int, int]:
    sizes = {trace.block_tokens for trace in traces if isinstance(trace.block_tokens, int) and trace.has_prefixes}
    if all(isinstance(trace.block_tokens, int) or not trace.has_prefixes for trace in traces) and len(sizes) <= 1:
        return sizes.pop() if sizes else 0
    named: dict[int, int] = {}
    for trace in traces:
        size = trace.block_tokens
        named |= dict.fromkeys(np.unique(trace.prefixes()[1]).tolist(), size) if isinstance(size, int) else dict(size)
    return named
