"""When requests are due: pure arithmetic over a whole trace, done once, before it is split over workers.

Instants are nanoseconds from the phase's start. A rate draws its gaps from a gamma distribution, as
`vllm bench serve --burstiness` does: shape = burstiness, mean = 1 / rate; 1 is a Poisson process, less is burstier,
more is steadier (infinity: an even beat).
"""

from __future__ import annotations

from math import isinf

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.trace import NS_PER_S, Trace


def at_rate(count: int, rate: float, burstiness: float = 1.0, seed: int = 0) -> npt.NDArray[np.int64]:
    """`count` ascending due instants (ns), the first at 0, at `rate` requests per second. Raises InputError.

    An infinite rate makes all of them due at once.
    """
    if not rate > 0:
        raise InputError(f"the rate must be positive, not {rate:g}", where="--request-rate")
    if not burstiness > 0:
        raise InputError(f"the burstiness must be positive, not {burstiness:g}", where="--burstiness")
    if isinf(rate) or not count:
        return np.zeros(count, np.int64)
    if isinf(burstiness):
        return np.asarray(np.rint(np.arange(count) * (NS_PER_S / rate)), np.int64)
    random = np.random.default_rng(seed)
    gaps = random.gamma(burstiness, 1 / (rate * burstiness), max(0, count - 1))
    due: npt.NDArray[np.int64] = np.concatenate(([0], np.rint(np.cumsum(gaps) * NS_PER_S))).astype(np.int64)
    return due


def pace(trace: Trace, *, rate: float | None = None, burstiness: float = 1.0, seed: int = 0) -> Trace:
    """The trace with its own instants, or with arrivals at `rate` in the order of the trace.

    A turn that waits for another one keeps its distance from it, so that sessions move as a whole.
    """
    if rate is None:
        return trace
    due, parent = trace.column("due"), trace.column("parent")
    row_of = {int(index): row for row, index in enumerate(trace.column("index"))} if trace.has_sessions else {}
    roots = np.array([int(before) not in row_of for before in parent]) if row_of else np.ones(len(trace), bool)
    moved = np.empty(len(trace), np.int64)
    moved[roots] = at_rate(int(roots.sum()), rate, burstiness, seed)
    for row in np.flatnonzero(~roots):  # a parent is due before its children, so it has been moved by now
        before = row_of[int(parent[row])]
        moved[row] = moved[before] + due[row] - due[before]
    order = np.argsort(moved, kind="stable")
    word = "at once" if isinf(rate) else f"at {rate:g}/s, burstiness {burstiness:g}"
    return trace.with_columns(due=moved).take(order).noted(word)
