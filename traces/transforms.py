"""Shapes: pure functions from traces to a Trace, each noted in `Trace.transforms`.

Requests keep their `index` through every shape that only leaves some out, so their prompts stay the same. Shapes that
add requests (merge, repeat, scale_rate) number requests anew and keep sessions apart. A copy of a request belongs to
another user: what several sessions shared stays shared, private blocks become new ones, which no cache has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, isinf
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import InputError, check_factor
from .trace import DEFAULTS, LATEST, NS_PER_S, Trace, Whole, build, chain_starts, in_order

Range = tuple[int | None, int | None]  # lowest and highest, None: open


def clip(trace: Trace, start: float = 0.0, end: float | None = None) -> Trace:
    """Requests due in [start, end) seconds from the trace's start, which becomes `start`."""
    latest = LATEST / NS_PER_S
    if not 0 <= start < (latest if end is None else end) <= latest:  # NaN neither
        raise InputError(f"expected 0 <= start < end <= {latest:.0f}, got {start} and {end} s", where="clip")
    due = trace.column("due")
    low = np.searchsorted(due, round(start * NS_PER_S))
    high = len(due) if end is None else np.searchsorted(due, round(end * NS_PER_S))
    part = trace[int(low) : int(high)]
    if start:
        part = part.with_columns(due=part.column("due") - round(start * NS_PER_S))
    return _orphaned(part).noted(f"clip {start:g}-{'' if end is None else f'{end:g}'} s")


def limit(trace: Trace, requests: int, skip: int = 0) -> Trace:
    """The first `requests` of the trace; those after the first `skip`, the first of which becomes the start."""
    if requests < 1 or skip < 0:
        raise InputError(f"expected at least 1 request, got {requests} after {skip}", where="limit")
    part = trace[skip : skip + requests]
    if not skip:
        return _orphaned(part).noted(f"limit {requests}")
    part = part.with_columns(due=part.column("due") - part.column("due")[:1])
    return _orphaned(part).noted(f"limit {requests} after {skip}")


def only(trace: Trace, *, prompt: Range = (None, None), output: Range = (None, None)) -> Trace:
    """Requests whose lengths lie in the given ranges (tokens, ends included, None: open). Raises InputError for a range
    that ends before it starts."""
    kept, words = np.ones(len(trace), bool), []
    for name, (low, high) in (("prompt", prompt), ("output", output)):
        if low is None and high is None:
            continue
        if low is not None and high is not None and not low <= high:
            raise InputError(f"expected {name} from low to high, got {low} to {high} tokens", where="only")
        values = trace.column(f"{name}_tokens")
        kept &= (values >= (low or 0)) & (values <= (2**31 if high is None else high))
        words.append(f"{name} {low or 0}-{'' if high is None else high}")
    return _orphaned(trace.take(kept)).noted("only " + ", ".join(words)) if words else trace


def speedup(trace: Trace, factor: float) -> Trace:
    """Time runs `factor` times as fast, think times too; 0.5 halves the rate."""
    check_factor(factor, "--speedup")
    columns = {"due": _faster(trace.column("due"), factor)}
    if trace.has("think"):
        columns["think"] = _faster(trace.column("think"), factor)
    return trace.with_columns(**columns).noted(f"speedup {factor:g}")


def at_rate(count: int, rate: float, burstiness: float = 1.0, seed: int = 0) -> Whole:
    """`count` ascending due instants (ns), the first at 0, at `rate` requests per second; all at 0 if it is infinite.
    Gaps are gamma-distributed, as those of `vllm bench serve --burstiness`: shape = burstiness, mean = 1 / rate; 1 is a
    Poisson process, less is burstier, more is steadier, infinity is an even beat."""
    if not rate > 0:
        raise InputError(f"the rate must be positive, not {rate:g}", where="--request-rate")
    if not burstiness > 0:
        raise InputError(f"the burstiness must be positive, not {burstiness:g}", where="--burstiness")
    if isinf(rate) or not count:
        return np.zeros(count, np.int64)
    with np.errstate(over="ignore"):
        if isinf(burstiness):
            instants = np.arange(count) * (NS_PER_S / rate)
        else:
            gaps = np.random.default_rng(seed).gamma(burstiness, 1 / (rate * burstiness), max(0, count - 1))
            instants = np.concatenate(([0], np.cumsum(gaps) * NS_PER_S))
    if not (instants <= LATEST).all():
        raise InputError(f"{rate:g}/s moves requests beyond 146 years", where="--request-rate", remedy="raise it")
    return np.asarray(np.rint(instants), np.int64)


def pace(trace: Trace, rate: float, *, burstiness: float = 1.0, seed: int = 0) -> Trace:
    """New instants in the order of the trace: arrivals `at_rate`. A request that waits for another one keeps its
    distance from it, so that sessions move as a whole."""
    due, parents, rows = trace.column("due"), trace.parent_rows(), np.arange(len(trace))
    first = chain_starts(np.where(parents < rows, parents, -1))
    starts = first == rows
    moved = np.zeros(len(trace), np.int64)
    moved[starts] = at_rate(int(starts.sum()), rate, burstiness, seed)
    moved = moved[first] + due - due[first]
    if (moved > LATEST).any():
        raise InputError(f"{rate:g}/s moves requests beyond 146 years", where="--request-rate", remedy="raise it")
    word = "at once" if isinf(rate) else f"at {rate:g}/s, burstiness {burstiness:g}"
    return trace.with_columns(due=moved).take(np.argsort(moved, kind="stable")).noted(word)


def cap_context(trace: Trace, context: int) -> Trace:
    """Lengths cut so that prompt and answer fit a model of `context` tokens: the answer to half of it, the prompt to
    what the answer leaves. A prompt is cut at its end, so capped turns of one session may become alike. Where the
    endpoint's chat template adds tokens, name a smaller context."""
    if context < 2:
        raise InputError(f"expected a context of at least 2 tokens, got {context}", where="cap context")
    output = np.minimum(trace.column("output_tokens"), context // 2)
    prompt = np.minimum(trace.column("prompt_tokens"), context - output)
    return trace.with_columns(prompt_tokens=prompt, output_tokens=output).noted(f"context {context}")


def part_of(trace: Trace, number: int, count: int) -> Trace:
    """Part `number` (from 0) of `count`: every request is in exactly one, a session never in two."""
    if not 0 <= number < count:
        raise InputError(f"expected a part from 0 to {count - 1}, got {number}", where="part")
    if count == 1:
        return trace
    session, index = trace.column("session"), trace.column("index")
    owner = np.where(session >= 0, session, index) % count
    return trace.take(owner == number).noted(f"part {number} of {count}")


def merge(traces: list[Trace]) -> Trace:
    """Several traces that start together; their blocks and sessions have nothing in common."""
    if not traces:
        raise InputError("expected at least one trace", where="merge")
    apart = [_blocks_from(trace, number << 40, None) for number, trace in enumerate(traces)]
    return _together(apart).noted("merge " + ", ".join(trace.name for trace in traces))


def repeat(trace: Trace, times: int) -> Trace:
    """The trace `times` times in a row, a mean gap between the end of one and the start of the next."""
    if times < 1:
        raise InputError(f"expected at least 1, got {times}", where="repeat")
    lap = trace.span + trace.span // max(1, len(trace) - 1)
    laps = enumerate(_copies(trace, times))
    moved = [copy.with_columns(due=copy.column("due") + number * lap) for number, copy in laps]
    return _together(moved).noted(f"repeat {times}")


def scale_rate(trace: Trace, factor: float, seed: int = 0) -> Trace:
    """The same process at another rate: below 1 by leaving sessions out at random, above it by superposing copies, each
    turned around in time by a random amount. Unlike `speedup`, the burstiness on each time scale stays."""
    if not 0 < factor <= 1000:
        raise InputError(f"expected a factor above 0, got {factor}", where="scale rate")
    rng = np.random.default_rng((seed, 5))
    copies = [_turned(copy, rng) if number else copy for number, copy in enumerate(_copies(trace, ceil(factor)))]
    return _multiple(copies, factor, rng).noted(f"rate x {factor:g}")


def superpose(slices: Sequence[Trace], factor: float, seed: int = 0) -> Trace:
    """`factor` of the slices at once: as many whole ones as it holds, and of the next one the share that is left, in
    whole sessions drawn at random (a request without a session is one of its own). Bursts and think times stay as they
    are. All slices begin together; sessions and private blocks of one have nothing in common with another's, while
    what several sessions of a slice share stays shared. Raises InputError where there are too few slices."""
    if not 0 < factor <= len(slices):
        raise InputError(f"expected a factor above 0 and up to {len(slices)}, got {factor}", where="superpose")
    if factor == 1:
        return slices[0]
    slices = slices[: ceil(factor)]
    taken = 1 + max(int(each.prefixes()[1].max(initial=0)) for each in slices)
    free = taken if taken < LATEST else 1 << 40  # ids are numbers, or 64-bit hashes with much room between them
    apart = [slices[0]]
    for each in slices[1:]:
        apart.append(_blocks_from(each, free, _private(each)))
        free += len(each.prefixes()[1])
    multiple = _multiple(apart, factor, np.random.default_rng((seed, 6)))
    return multiple.noted(f"{factor:g} times the sessions")


def _faster(nanos: Whole, factor: float) -> Whole:
    """Exact for whole factors; otherwise to the precision of a long double (64 bits on x86)."""
    if factor == int(factor) and factor < LATEST:
        return np.asarray(nanos // int(factor))
    scaled = np.rint(nanos.astype(np.longdouble) / np.longdouble(factor))
    if (scaled > LATEST).any():
        problem = f"{factor:g} moves requests beyond 146 years"
        raise InputError(problem, where="--speedup", remedy="expected a larger factor")
    return np.asarray(scaled, np.int64)


def _orphaned(trace: Trace) -> Trace:
    """A request whose parent was left out waits for nobody."""
    if not trace.has("parent"):
        return trace
    return trace.with_columns(parent=np.where(trace.parent_rows() >= 0, trace.column("parent"), -1))


def _turned(trace: Trace, rng: np.random.Generator) -> Trace:
    """The trace begun at a random instant of it; what comes before follows its end. A session cut so becomes two."""
    lap = trace.span + 1
    due = trace.column("due") + rng.integers(0, lap)
    early = due >= lap
    turned = trace.with_columns(due=due % lap)
    if trace.has("session"):
        session = trace.column("session")
        turned = turned.with_columns(session=np.where(early & (session >= 0), session + session.max() + 1, session))
    if trace.has("parent"):
        index, parent = trace.column("index"), trace.column("parent")
        cut = early & ~np.isin(parent, index[early])
        turned = turned.with_columns(parent=np.where(cut, -1, parent))
    return turned


def _multiple(traces: list[Trace], factor: float, rng: np.random.Generator) -> Trace:
    """All of the traces together, of the last one only the share that `factor` leaves for it: exactly so many of its
    sessions, whichever they are."""
    share = factor - (len(traces) - 1)
    if share < 1:
        owners, where = np.unique(_owners(traces[-1]), return_inverse=True)
        kept = np.zeros(len(owners), np.bool_)
        kept[rng.permutation(len(owners))[: round(share * len(owners))]] = True
        traces = [*traces[:-1], _orphaned(traces[-1].take(kept[where]))]
    return _together(traces) if len(traces) > 1 else traces[0]


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


def _blocks_from(trace: Trace, base: int, chosen: npt.NDArray[np.bool_] | None) -> Trace:
    """Blocks numbered from `base`: those `chosen` (a flag for each prefix entry), or all."""
    if not trace.has("prefix"):
        return trace
    offsets, ids = trace.prefixes()
    known, ranks = np.unique(ids, return_inverse=True)
    renamed = base + ranks if chosen is None else np.where(chosen, base + ranks, ids)
    prefix = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(renamed, pa.int64()))
    table = trace.table.set_column(trace.table.schema.get_field_index("prefix"), "prefix", prefix)
    sizes = trace.block_tokens
    if not isinstance(sizes, int):
        again = {base + rank: sizes[block] for rank, block in enumerate(known.tolist()) if block in sizes}
        sizes = {**sizes, **again}
    return replace(trace, table=table, block_tokens=sizes)


def _together(traces: list[Trace]) -> Trace:
    """One trace of all requests, by due; indices, parents and sessions numbered anew, the rest the first one's."""
    optional = [name for name in (*DEFAULTS, "prefix") if any(trace.has(name) for trace in traces)]
    columns: dict[str, list[Any]] = {name: [] for name in ("due", "prompt_tokens", "output_tokens", *optional)}
    rows = sessions = 0
    for trace in traces:
        for name, parts in columns.items():
            if name == "prefix":
                offsets, ids = trace.prefixes()
                parts.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids, pa.int64())))
            elif name == "parent":
                parents = trace.parent_rows()
                parts.append(np.where(parents >= 0, parents + rows, -1))
            elif name == "session":
                session = trace.column("session")
                parts.append(np.where(session >= 0, session + sessions, -1))
                sessions += int(session.max(initial=-1)) + 1
            else:
                parts.append(trace.column(name))
        rows += len(trace)
    joined = {name: pa.concat_arrays(p) if name == "prefix" else np.concatenate(p) for name, p in columns.items()}
    return replace(traces[0], table=build(in_order(joined)).table, block_tokens=_sizes(traces))


def _sizes(traces: list[Trace]) -> int | dict[int, int]:
    sizes = {trace.block_tokens for trace in traces if isinstance(trace.block_tokens, int) and trace.has("prefix")}
    if all(isinstance(trace.block_tokens, int) or not trace.has("prefix") for trace in traces) and len(sizes) <= 1:
        return sizes.pop() if sizes else 0
    named: dict[int, int] = {}
    for trace in traces:
        size = trace.block_tokens
        named |= dict.fromkeys(np.unique(trace.prefixes()[1]).tolist(), size) if isinstance(size, int) else dict(size)
    return named
