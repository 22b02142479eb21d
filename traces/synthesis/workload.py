"""`synthesise`: a trace drawn from a workload's parameters. A workload is a small JSON file (see docs/traces.md):

    {"about": ..., "duration": s, "arrivals": {...}, "prompt": {...}, "output": {...}, "copula": rho, "sessions": {...}}

`arrivals`, `lengths` and `sessions`, beside this file, say what the parts may hold. The same workload, seed and rate
give the same trace on every machine; another rate keeps each request's lengths and changes only the instants.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..trace import NS_PER_S, Columns, Trace, Whole, build
from ..typed_json import LEFT_OUT, from_plain
from . import lengths
from .arrivals import Process, arrivals
from .lengths import Lengths
from .sessions import Continued, Grown, continued, grown, run_up

FOLDER = Path(__file__).parent.parent / "workloads"
WORKLOADS = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
LARGEST = 50_000_000  # requests; more is a slip of the keyboard


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Parameters of a service's traffic. `duration` in seconds; `copula`: correlation of prompt and output."""

    about: str = ""
    fitted_to: str = field(default="", metadata=LEFT_OUT)
    duration: float = 3600.0
    arrivals: Process = field(default_factory=Process)
    prompt: Lengths
    output: Lengths
    copula: float | None = None
    sessions: Grown | Continued | None = field(default=None, metadata=LEFT_OUT)


def synthesise(
    workload: str | Workload, *, rate: float | None = None, duration: float | None = None, seed: int = 0
) -> Trace:
    """A trace of a bundled workload (`WORKLOADS`), of a workload file, or of a workload that `fit` made.

    rate      requests/s, else the workload's own
    duration  seconds, else the workload's own
    Raises InputError for a workload, rate or duration that can't be used.
    """
    source = workload if isinstance(workload, str) else "workload"
    workload = load(workload) if isinstance(workload, str) else workload
    try:
        return _drawn(workload, rate, duration, seed, source)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"not a workload: {error!r}", where=source, remedy="see docs/traces.md") from None


def load(name_or_file: str) -> Workload:
    """The workload of a name or a file. Raises InputError, with file and field."""
    path = FOLDER / f"{name_or_file}.json" if name_or_file in WORKLOADS else Path(name_or_file)
    try:
        return from_plain(Workload, json.loads(path.read_text()), name_or_file)
    except OSError:
        remedy = f"a file or one of {', '.join(WORKLOADS)}"
        raise InputError("no such workload", where=name_or_file, remedy=remedy) from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=name_or_file, remedy="expected a workload file") from None


def _drawn(workload: Workload, rate: float | None, duration: float | None, seed: int, source: str) -> Trace:
    process, sessions = workload.arrivals, workload.sessions
    rate = (1.0 if process.rate is None else process.rate) if rate is None else rate
    duration = workload.duration if duration is None else duration
    if not (rate > 0 and duration > 0 and rate * duration <= LARGEST):
        raise InputError(f"expected a rate and a duration above 0, got {rate}/s for {duration} s", where=source)
    rng = np.random.default_rng((seed, 0))
    if isinstance(sessions, Grown):
        before = run_up(sessions, workload.output)
        instants = arrivals(process, rate / sessions.mean_turns, before + duration, rng) - before
    else:
        instants = arrivals(process, rate, duration, rng)
    due = np.rint(instants * NS_PER_S).astype(np.int64)
    columns = _requests(workload, due, int(duration * NS_PER_S), seed)
    if not len(columns["due"]):
        raise InputError(f"no request falls into {duration:g} s at {rate:g}/s", where=source, remedy="raise either")
    notes = {"synthetic": {"workload": source, "rate": rate, "duration": duration, "seed": seed}}
    block_tokens = sessions.block_tokens if sessions else 0
    return build(columns, name=Path(source).stem, block_tokens=block_tokens, source=source, notes=notes)


def _requests(workload: Workload, due: Whole, end: int, seed: int) -> Columns:
    """Columns of requests, or of sessions, that start at `due`."""
    sessions, rng = workload.sessions, np.random.default_rng((seed, 4))
    if isinstance(sessions, Grown):
        return grown(sessions, (workload.prompt, workload.output), due, end, rng)
    first, second = lengths.pairs(len(due), workload.copula or 0.0, (seed,))
    prompt, output = lengths.quantile(workload.prompt, first, 1), lengths.quantile(workload.output, second, 1)
    columns: Columns = {"due": due, "prompt_tokens": prompt, "output_tokens": output}
    return columns if sessions is None else {**columns, **continued(sessions, due, prompt, output, rng)}
