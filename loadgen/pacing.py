"""What a Load makes of a trace: read, paced and cut, once, before it is split over workers.

Instants are nanoseconds from the phase's start. A rate draws its gaps from a gamma distribution, as
`vllm bench serve --burstiness` does: shape = burstiness, mean = 1 / rate; 1 is a Poisson process, less is burstier,
more is steadier (infinity: an even beat).
"""

from __future__ import annotations

from math import isinf

import numpy as np
import numpy.typing as npt

from traces import transforms
from traces.errors import InputError
from traces.reading import open_trace
from traces.trace import NS_PER_S, Trace

from .load import Load

LONGEST = 10_000_000  # tokens of a prompt; more is a slip of the keyboard
MOST = 50_000_000  # requests of a step, too


def requests(trace: Trace | str, load: Load) -> Trace:
    """The requests of one load step with their final due instants, of a trace or of the one of that name (see
    `traces.open_trace`). Raises InputError."""
    source = _opened(trace, load) if isinstance(trace, str) else trace
    name = trace if isinstance(trace, str) else trace.source or trace.name
    if not len(source):
        raise InputError("the trace is empty", where=name)
    if load.speedup != 1:
        source = transforms.speed(source, load.speedup)
    paced = pace(source, rate=load.request_rate, burstiness=load.burstiness, seed=load.seed)
    if load.seconds is not None and load.concurrency is None:
        paced = transforms.clip(paced, 0, load.seconds)
    if load.request_count is not None:
        paced = transforms.limit(paced, load.request_count)
    if load.max_context is not None:
        paced = transforms.cap_context(paced, load.max_context)
    if not len(paced):
        raise InputError("no request is left to send", where=name, remedy="a longer --duration?")
    _check(paced, load, name)
    return paced


def _opened(name: str, load: Load) -> Trace:
    """As much of the trace as its own instants bring into the run."""
    if not name:
        raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
    timed = load.seconds is not None and load.request_rate is None and load.concurrency is None
    until = load.seconds * load.speedup if timed and load.seconds else None
    return open_trace(name, until=until, skip_bad_rows=load.skip_bad_rows, keep_ticks=load.keep_ticks, seed=load.seed)


def _check(trace: Trace, load: Load, name: str) -> None:
    """Refuses what would stall, or send without counting anything."""
    if len(trace) > MOST:
        raise InputError(f"{len(trace):,} requests", where=name, remedy=f"at most {MOST:,}: give --duration")
    lengths = trace.column("prompt_tokens")
    if (longest := int(lengths.max())) > LONGEST:
        index = trace.column("index")[lengths.argmax()]
        raise InputError(
            f"request {index} has a prompt of {longest:,} tokens", where=name, remedy="--max-context cuts it"
        )
    waits = load.concurrency is not None or (trace.has_sessions and not load.open_loop)  # else the instants are known
    end = int(trace.column("due")[-1])
    if not waits and end < load.warmup * NS_PER_S:
        raise InputError(
            f"the trace ends at {end / NS_PER_S:g} s, before the warm-up does ({load.warmup:g} s)", where="--warmup"
        )


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


def share(total: int, shard: int, shards: int) -> int:
    """How many of `total` slots one of `shards` workers holds; the shares add up to the total."""
    return total // shards + (shard < total % shards)


def leaves(seed: int, index: int, share: float, tokens: int) -> int | None:
    """After how many tokens a request's user leaves; None for the 1 - `share` who stay. The same in every process."""
    random = np.random.default_rng([seed, index])
    return 1 + int(random.integers(max(1, tokens))) if random.random() < share else None
