"""`profile`: what a trace is like, in numbers that JSON can hold: rate, burstiness, lengths, sessions, prefix reuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .trace import Trace

WINDOWS = (1, 10, 60)  # seconds over which counts are compared
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
TIMELINE_BINS = 120


def profile(trace: Trace) -> dict[str, Any]:
    """Durations in seconds, lengths in tokens; None where the trace is too short to say."""
    due = trace.column("due") / 1e9
    span = float(due[-1] - due[0]) if len(due) else 0.0
    prompt, output = trace.column("prompt_tokens"), trace.column("output_tokens")
    return {
        "requests": len(trace),
        "span_s": span,
        "rate": len(trace) / span if span else None,
        "arrivals": _arrivals(due, span),
        "prompt_tokens": _spread(prompt),
        "output_tokens": _spread(output),
        "spearman": spearman(prompt, output),
        "sessions": _sessions(trace) if trace.has_sessions else None,
        "prefix": prefix_reuse(trace) if trace.has_prefixes else None,
        "timeline": _timeline(due, span),
    }


def dispersion(due: npt.NDArray[np.float64], window: float) -> float | None:
    """Variance/mean of counts in whole windows: 1 for Poisson, more for bursts. None below five windows."""
    counts = window_counts(due, window)
    return float(counts.var() / counts.mean()) if len(counts) >= 5 and counts.any() else None


def window_counts(due: npt.NDArray[np.float64], window: float) -> npt.NDArray[np.int64]:
    """Requests in each whole window from the first second of the trace on."""
    whole = int(due[-1] // window) if len(due) else 0
    return np.bincount((due // window).astype(np.int64), minlength=whole)[:whole]


def spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float | None:
    """Rank correlation; None where one of them doesn't vary."""
    a, b = _ranks(first), _ranks(second)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def prefix_reuse(trace: Trace) -> dict[str, Any]:
    """What a perfect prefix cache, infinite and empty at the start, would hit: tokens of the longest run of leading
    blocks that some earlier request began with too."""
    offsets, ids = trace.prefixes()
    sizes = trace.block_tokens
    lengths = trace.column("prompt_tokens").tolist()
    known: dict[tuple[int, int], int] = {}  # the tree of prefixes: (node, block id) -> node
    hit = shared = 0
    flat, bounds = ids.tolist(), offsets.tolist()
    for row, length in enumerate(lengths):
        node, left, hitting = 0, length, True
        for block in flat[bounds[row] : bounds[row + 1]]:
            size = min(left, sizes if isinstance(sizes, int) else sizes.get(block, 0))
            following = known.get((node, block))
            if following is None:
                hitting = False
                following = known[(node, block)] = len(known) + 1
            node = following
            left -= size
            if hitting:
                hit += size
        shared += length - left
    total = sum(lengths)
    return {
        "blocks": len(np.unique(ids)),
        "block_tokens": sizes if isinstance(sizes, int) else "variable",
        "in_blocks_share": shared / total,
        "hit_tokens": hit,
        "hit_share": hit / total,
    }


def _arrivals(due: npt.NDArray[np.float64], span: float) -> dict[str, Any] | None:
    if not span:
        return None
    gaps = np.diff(due)
    peaks = {window: window_counts(due, window) for window in (1, 10)}
    return {
        "cv": float(gaps.std() / gaps.mean()),
        "longest_gap_s": float(gaps.max()),
        "dispersion": {str(window): dispersion(due, window) for window in WINDOWS},
        "peak_to_mean": {
            str(window): float(counts.max() / counts.mean()) if counts.any() else None
            for window, counts in peaks.items()
        },
    }


def _spread(values: npt.NDArray[Any]) -> dict[str, Any]:
    if not len(values):
        return {}
    found = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    total = int(values.sum(dtype=np.int64))
    return {
        "min": int(values.min()), **found, "max": int(values.max()), "mean": total / len(values), "total": total
    }  # fmt: skip


def _sessions(trace: Trace) -> dict[str, Any]:
    session = trace.column("session")
    inside = session[session >= 0]
    numbers, turns = np.unique(inside, return_counts=True)
    waiting = trace.column("parent") >= 0
    return {
        "count": len(numbers),
        "requests": len(inside),
        "turns": _spread(turns),
        "follow_ups": int(waiting.sum()),
        "think_ms": _spread(trace.column("think")[waiting] // 1_000_000),
    }


def _timeline(due: npt.NDArray[np.float64], span: float) -> dict[str, Any] | None:
    if not span:
        return None
    step = span / TIMELINE_BINS
    counts = np.bincount(((due - due[0]) / step).astype(np.int64).clip(max=TIMELINE_BINS - 1), minlength=TIMELINE_BINS)
    return {"step_s": step, "counts": counts.tolist()}


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Ranks, ties sharing their mean."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    after = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (after - (counts - 1) / 2)[where]
    return ranks
