"""What a Load makes of a trace: read, paced and cut, once.

Instants are nanoseconds from the step's start.
"""

from __future__ import annotations

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
        source = transforms.speedup(source, load.speedup)
    if load.request_rate is not None:
        source = transforms.pace(source, load.request_rate, burstiness=load.burstiness, seed=load.seed)
    if load.seconds is not None and load.concurrency is None:
        source = transforms.clip(source, 0, load.seconds)
    if load.request_count is not None:
        source = transforms.limit(source, load.request_count)
    if load.max_context is not None:
        source = transforms.cap_context(source, load.max_context)
    if not len(source):
        raise InputError("no request is left to send", where=name, remedy="a longer --duration?")
    _check(source, load, name)
    return source


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
