"""`describe`: what a trace is like, in numbers: rate, burstiness, lengths, sessions, prefix reuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .trace import NS_PER_MS, NS_PER_S, Floats, Trace, Whole
from .typed_json import EMPTY

WINDOWS = (1, 10, 60)  # seconds over which counts are compared
QUANTILES = (0.5, 0.9, 0.99)
TIMELINE_BINS = 120
ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Spread:
    """The distribution of whole numbers: tokens, turns or milliseconds. Quantiles are linear between neighbours."""

    min: int
    p50: float
    p90: float
    p99: float
    max: int
    mean: float
    total: int


@dataclass(frozen=True)
class Arrivals:
    """Burstiness."""

    cv: float  # of the gaps, 1 for Poisson
    longest_gap_s: float
    dispersion: dict[str, float | None]  # of counts in windows, by their seconds as text; None: too few windows
    peak_to_mean: dict[str, float | None]  # the same


@dataclass(frozen=True)
class Sessions:
    """`requests`: how many belong to a session; `follow_ups`: how many wait for another; `think_ms`: theirs."""

    count: int
    requests: int
    turns: Spread | None = field(metadata=EMPTY)
    follow_ups: int
    think_ms: Spread | None = field(metadata=EMPTY)


@dataclass(frozen=True)
class PrefixReuse:
    """What a perfect prefix cache, infinite and empty at the start, would hit: tokens of the longest run of leading
    blocks that some earlier request began with too. Shares are of all prompt tokens."""

    blocks: int
    block_tokens: int | str  # "variable": blocks differ in length
    in_blocks_share: float
    hit_tokens: int
    hit_share: float


@dataclass(frozen=True)
class Timeline:
    """Arrivals in equal steps of the trace."""

    step_s: float
    counts: list[int]


@dataclass(frozen=True)
class Statistics:
    """Durations in seconds, lengths in tokens; None where the trace doesn't have it, or is too short to say.
    `rate`: requests a second; `spearman`: rank correlation of prompt and output."""

    requests: int
    span_s: float
    rate: float | None
    arrivals: Arrivals | None
    prompt_tokens: Spread | None = field(metadata=EMPTY)
    output_tokens: Spread | None = field(metadata=EMPTY)
    spearman: float | None
    sessions: Sessions | None
    prefix: PrefixReuse | None
    timeline: Timeline | None


def describe(trace: Trace) -> Statistics:
    """The figures of a trace, an empty one too. Raises nothing."""
    due = trace.column("due") / NS_PER_S
    span = float(due[-1] - due[0]) if len(due) else 0.0
    arrivals, timeline = (_arrivals(due), _timeline(due, span / TIMELINE_BINS)) if span else (None, None)
    del due  # of a long trace it is much memory, which ranks need
    prompt, output = trace.column("prompt_tokens"), trace.column("output_tokens")
    return Statistics(
        requests=len(trace), span_s=span, rate=len(trace) / span if span else None, arrivals=arrivals,
        prompt_tokens=_spread(prompt), output_tokens=_spread(output), spearman=spearman(prompt, output),
        sessions=_sessions(trace) if trace.has("session") else None,
        prefix=prefix_reuse(trace) if trace.has("prefix") else None, timeline=timeline,
    )  # fmt: skip


def dispersion(due: Floats, window: float) -> float | None:
    """Variance/mean of counts in whole windows: 1 for Poisson, more for bursts. None below five windows."""
    counts = window_counts(due, window)
    return float(counts.var() / counts.mean()) if len(counts) >= 5 and counts.any() else None


def window_counts(due: Floats, window: float) -> Whole:
    """Requests in each whole window from the first second of the trace on."""
    whole = int(due[-1] // window) if len(due) else 0
    return np.diff(np.searchsorted(due, window * np.arange(whole + 1)))


def spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float | None:
    """Rank correlation; None where one of them doesn't vary."""
    if len(first) < 3:
        return None
    a, b = _ranks(first), _ranks(second)
    varied = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / varied if varied else None


def prefix_reuse(trace: Trace) -> PrefixReuse:
    entries = prefix_entries(trace)
    new = np.zeros(len(entries.rows), bool)
    new[np.unique(entries.hashes, return_index=True)[1]] = True
    total = int(trace.column("prompt_tokens").sum(dtype=np.int64))
    tokens, hit = entries.tokens, int(entries.tokens[~new].sum())
    return PrefixReuse(
        blocks=entries.blocks, block_tokens=trace.block_tokens if isinstance(trace.block_tokens, int) else "variable",
        in_blocks_share=int(tokens.sum()) / total, hit_tokens=hit, hit_share=hit / total,
    )  # fmt: skip


class Entries(NamedTuple):
    """All entries of all prefixes: the row of each, its tokens, and a hash of its row's prefix up to it."""

    blocks: int  # distinct ones
    rows: Whole
    tokens: Whole
    hashes: npt.NDArray[np.uint64]


def prefix_entries(trace: Trace) -> Entries:
    offsets, ids = trace.prefixes()
    rows = np.repeat(np.arange(len(trace)), np.diff(offsets))
    distinct, where = np.unique(ids, return_inverse=True)
    size = trace.sizes(distinct)[where]
    before = _running(size, offsets, rows) - size
    left = trace.column("prompt_tokens")[rows] - before
    tokens = np.clip(left, 0, size)  # the last block is cut at the prompt's end
    return Entries(len(distinct), rows, tokens, _prefix_hashes(where, offsets, rows))


def _prefix_hashes(ranks: Whole, offsets: Whole, rows: Whole) -> npt.NDArray[np.uint64]:
    """For each entry a hash of all entries of its row up to it: sum of mix(block) * P**position modulo 2**64. Equal
    beginnings are equal; with 3 million entries two others are with a chance of 2e-7."""
    position = np.arange(len(ranks)) - offsets[rows]
    powers = np.cumprod(np.full(int(position.max(initial=0)) + 1, ODD, np.uint64))
    mixed = np.random.default_rng(0).integers(0, 2**64, int(ranks.max(initial=0)) + 1, np.uint64)
    return _running(mixed[ranks] * powers[position], offsets, rows)


def _running(values: npt.NDArray[Any], offsets: Whole, rows: Whole) -> npt.NDArray[Any]:
    """Running sums inside each row."""
    sums = np.concatenate((np.zeros(1, values.dtype), np.cumsum(values)))
    return np.asarray(sums[1:] - sums[offsets[rows]])


def _arrivals(due: Floats) -> Arrivals:
    peaks = {}
    for window in (1, 10):
        counts = window_counts(due, window)
        peaks[str(window)] = float(counts.max() / counts.mean()) if counts.any() else None
    gaps = np.diff(due)
    longest, mean = float(gaps.max()), gaps.mean()
    gaps -= mean  # in place: long traces fill the memory
    return Arrivals(
        cv=float(np.sqrt(gaps @ gaps / len(gaps)) / mean),
        longest_gap_s=longest,
        dispersion={str(window): dispersion(due, window) for window in WINDOWS},
        peak_to_mean=peaks,
    )


def _spread(values: npt.NDArray[Any]) -> Spread | None:
    if not len(values):
        return None
    p50, p90, p99 = (float(np.quantile(values, q)) for q in QUANTILES)
    total = int(values.sum(dtype=np.int64))
    return Spread(int(values.min()), p50, p90, p99, int(values.max()), total / len(values), total)


def _sessions(trace: Trace) -> Sessions:
    session = trace.column("session")
    inside = session[session >= 0]
    numbers, turns = np.unique(inside, return_counts=True)
    waiting = trace.column("parent") >= 0
    return Sessions(
        count=len(numbers), requests=len(inside), turns=_spread(turns), follow_ups=int(waiting.sum()),
        think_ms=_spread(trace.column("think")[waiting] // NS_PER_MS),
    )  # fmt: skip


def _timeline(due: Floats, step: float) -> Timeline:
    edges = np.searchsorted(due, due[0] + step * np.arange(1, TIMELINE_BINS))
    return Timeline(step, np.diff(edges, prepend=0, append=len(due)).tolist())


def _ranks(values: npt.NDArray[Any]) -> Floats:
    """Ranks less their mean, ties sharing theirs."""
    distinct, counts = np.unique(values, return_counts=True)
    ranks = np.cumsum(counts) - (counts + len(values)) / 2
    return np.asarray(ranks[np.searchsorted(distinct, values)])
