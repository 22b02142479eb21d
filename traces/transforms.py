"""Shapes: pure functions from a Trace to a Trace, each noted in `Trace.transforms` in the words of its option.

Requests keep their `index` through every shape that only leaves some out, so their prompts stay the same; shapes
that add requests (repeat, merge, superposition) number anew.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .synthesis import arrivals
from .trace import LATEST, NS_PER_S, Trace


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


def limit(trace: Trace, requests: int) -> Trace:
    """The first `requests` of the trace."""
    if requests < 1:
        raise InputError(f"expected at least 1 request, got {requests}", where="limit")
    return _orphaned(trace[:requests]).noted(f"limit {requests}")


def only(
    trace: Trace,
    *,
    prompt: tuple[int | None, int | None] = (None, None),
    output: tuple[int | None, int | None] = (None, None),
) -> Trace:
    """Requests whose lengths lie in the given ranges (tokens, ends included, None: open)."""
    kept = np.ones(len(trace), bool)
    words = []
    for name, (low, high) in (("prompt", prompt), ("output", output)):
        if low is None and high is None:
            continue
        values = trace.column(f"{name}_tokens")
        kept &= (values >= (low or 0)) & (values <= (2**31 if high is None else high))
        words.append(f"{name} {low or 0}-{'' if high is None else high}")
    return _orphaned(trace.take(kept)).noted("only " + ", ".join(words)) if words else trace


def speed(trace: Trace, factor: float) -> Trace:
    """Time runs `factor` times as fast, think times too; 0.5 halves the rate."""
    if not 0 < factor < float("inf"):
        raise InputError(f"expected a factor above 0, got {factor}", where="speed")
    columns = {"due": _faster(trace.column("due"), factor)}
    if "think" in trace.table.column_names:
        columns["think"] = _faster(trace.column("think"), factor)
    return trace.with_columns(**columns).noted(f"speed {factor:g}")


def pace(trace: Trace, rate: float, *, gaps: str = "exponential", shape: float = 1.0, seed: int = 0) -> Trace:
    """New instants: sessions (a request without one is its own) start as a renewal process of `rate` a second, gaps as
    `traces.synthesis.arrivals` has them; inside a session the distances stay."""
    if not 0 < rate < float("inf"):
        raise InputError(f"expected a rate above 0, got {rate}", where="pace")
    due, session = trace.column("due"), trace.column("session")
    owner = np.where(session >= 0, session, -2 - np.arange(len(trace)))
    _, first, where = np.unique(owner, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    rng = np.random.default_rng((seed, 3))
    with np.errstate(over="ignore"):
        starts = np.cumsum(arrivals.gaps({"gaps": gaps, "shape": shape}, len(first), rng)) / rate * NS_PER_S
    since = due - due[first][where]
    if not (starts[order][where] + since <= LATEST).all():
        raise InputError(f"{rate:g}/s moves requests beyond 146 years", where="pace", remedy="expected a higher rate")
    moved = starts[order].astype(np.int64)[where] + since
    resorted = trace.with_columns(due=moved).take(np.argsort(moved, kind="stable"))
    return resorted.noted(f"pace {rate:g}/s {gaps}" + (f" {shape:g}" if shape != 1 else ""))


def cap_context(trace: Trace, context: int) -> Trace:
    """Lengths cut so that prompt and answer fit a model of `context` tokens: the answer to half of it, the prompt to
    what the answer leaves. A prompt is cut at its end, so capped turns of one session may become alike. Where the
    endpoint's chat template adds tokens, name a smaller context."""
    if context < 2:
        raise InputError(f"expected a context of at least 2 tokens, got {context}", where="cap context")
    output = np.minimum(trace.column("output_tokens"), context // 2)
    prompt = np.minimum(trace.column("prompt_tokens"), context - output)
    return trace.with_columns(prompt_tokens=prompt, output_tokens=output).noted(f"context {context}")


def shard(trace: Trace, number: int, count: int) -> Trace:
    """Part `number` (from 0) of `count`: every request is in exactly one, a session never in two."""
    if not 0 <= number < count:
        raise InputError(f"expected a shard from 0 to {count - 1}, got {number}", where="shard")
    if count == 1:
        return trace
    session, index = trace.column("session"), trace.column("index")
    owner = np.where(session >= 0, session, index) % count
    return trace.take(owner == number).noted(f"shard {number} of {count}")


def _faster(nanos: npt.NDArray[np.int64], factor: float) -> npt.NDArray[np.int64]:
    """Exact for whole factors; otherwise to the precision of a long double (64 bits on x86)."""
    if factor == int(factor) and factor < LATEST:
        return np.asarray(nanos // int(factor))
    scaled = np.rint(nanos.astype(np.longdouble) / np.longdouble(factor))
    if (scaled > LATEST).any():
        raise InputError(
            f"{factor:g} moves requests beyond 146 years", where="speed", remedy="expected a larger factor"
        )
    whole: npt.NDArray[np.int64] = scaled.astype(np.int64)
    return whole


def _orphaned(trace: Trace) -> Trace:
    """A request whose parent was left out waits for nobody."""
    if "parent" not in trace.table.column_names:
        return trace
    parent = trace.column("parent")
    return trace.with_columns(parent=np.where(np.isin(parent, trace.column("index")), parent, -1))
