"""From what the user asked for to a plan: the trace read, shaped and paced, and a leg for each target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from targets.target import Target
from traces import transforms
from traces.errors import InputError
from traces.prompts import corpus as corpora
from traces.reading import open_trace
from traces.statistics import describe
from traces.trace import NS_PER_S, Trace

from . import plan as plans
from .load import Answers, Gates, Load
from .plan import Arm, Plan, Step

LONGEST = 10_000_000  # tokens of a prompt; more is a slip of the keyboard
MOST = 50_000_000  # requests of a plan, too


def requests(load: Load) -> Trace:
    """The requests of one phase, with their final due instants. Raises InputError."""
    trace = source(load)
    if load.request_rate is not None:
        trace = transforms.pace(trace, load.request_rate, burstiness=load.burstiness, seed=load.seed)
    if load.seconds is not None and load.concurrency is None:
        trace = transforms.clip(trace, 0, load.seconds)
    if load.request_count is not None:
        trace = transforms.limit(trace, load.request_count)
    if load.max_context is not None:
        trace = transforms.cap_context(trace, load.max_context)
    if not len(trace):
        raise InputError("no request is left to send", where=load.trace, remedy="a longer --duration?")
    _check(trace, load)
    return trace


def _check(trace: Trace, load: Load) -> None:
    """Refuses what would stall, or send without counting anything."""
    if len(trace) > MOST:
        raise InputError(f"{len(trace):,} requests", where=load.trace, remedy=f"at most {MOST:,}: give --duration")
    lengths = trace.column("prompt_tokens")
    if (longest := int(lengths.max())) > LONGEST:
        index = trace.column("index")[lengths.argmax()]
        raise InputError(
            f"request {index} has a prompt of {longest:,} tokens", where=load.trace, remedy="--max-context cuts it"
        )
    waits = load.concurrency is not None or (trace.has_sessions and not load.open_loop)  # else the instants are known
    end = int(trace.column("due")[-1])
    if not waits and end < load.warmup * NS_PER_S:
        raise InputError(
            f"the trace ends at {end / NS_PER_S:g} s, before the warm-up does ({load.warmup:g} s)",
            where="--warmup",
        )


def source(load: Load) -> Trace:
    """The trace as it is named, as much of it as its own instants bring into the run."""
    if not load.trace:
        raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
    timed = load.seconds is not None and load.request_rate is None and load.concurrency is None
    trace = open_trace(
        load.trace,
        until=load.seconds * load.speedup if timed and load.seconds else None,
        skip_bad_rows=load.skip_bad_rows,
        keep_ticks=load.keep_ticks,
        seed=load.seed,
    )
    if not len(trace):
        raise InputError("the trace is empty", where=load.trace)
    return trace if load.speedup == 1 else transforms.speedup(trace, load.speedup)


def phase(file: str, name: str, load: Load, specs: Sequence[Target], trace: Trace) -> Step:
    """One phase that sends the same requests, those of `file`, to every target."""
    legs = tuple(
        Arm(spec, file, len(trace), load.concurrency, load.open_loop, load.retries, load.leave) for spec in specs
    )
    return Step(name, legs, load.describe(), load.warmup, load.duration, load.drain_timeout)


def common(salt: str, answers: Answers, gates: Gates) -> dict[str, Any]:
    """Fields of a plan that don't depend on its loads."""
    return {
        "salt": salt,
        "prompts": _prompts(answers),
        "tokenizer": answers.tokenizer,
        "vocabulary": answers.token_ids,
        "slo": tuple(gates.slo),
        "goodput": tuple(gates.goodput),
    }


def _prompts(answers: Answers) -> dict[str, Any] | None:
    """What a plan says of the user's own texts, which must be usable."""
    if answers.prompts is None:
        return None
    corpus = corpora.read(answers.prompts)
    if answers.tokenizer is None:
        corpus.check_words()
    return corpus.about()


def replay(name: str, load: Load, spec: Target, **rest: Any) -> tuple[Plan, dict[str, Trace]]:
    """The plan of a replay, one phase of one leg, and its requests by file. `rest`: the plan's other fields."""
    trace, file = requests(load), plans.step_file(0)
    record = {**rest.pop("record", {}), "trace": about(trace)}
    only = phase(file, "replay", load, [spec], trace)
    return Plan(name, (only,), seed=load.seed, record=record, **rest), {file: trace}


def about(trace: Trace) -> dict[str, Any]:
    """What run.json says of a trace."""
    return {
        "name": trace.name,
        "source": trace.source,
        "fingerprint": trace.fingerprint(),
        "requests": len(trace),
        "span_s": trace.span / NS_PER_S,
        "transforms": list(trace.transforms),
        "notes": dict(trace.notes),
        "profile": describe(trace).to_json(),
    }


def name_of(trace: str) -> str:
    """A short name for runs of this trace."""
    return "stdin" if trace == "-" else Path(trace).name.partition(".")[0] or "trace"


def new_folder(name: str, out: Path | None = None) -> Path:
    """A run's folder, made now: `out`, or runs/<name>-<time>. Never one that holds something already."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                "holds something already", where=str(out), remedy="runs are never overwritten: name another"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise _unwritable(out, problem) from None
        return out
    return numbered(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def numbered(path: Path) -> Path:
    """The folder, made now; -2, -3, ... is added to a name that is taken."""
    for number in range(1, 10_000):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as problem:
            raise _unwritable(candidate, problem) from None
        return candidate
    raise InputError("no free name for a run", where=str(path))


def _unwritable(folder: Path, problem: OSError) -> InputError:
    return InputError(f"can't be made: {problem.strerror}", where=str(folder), remedy="name another folder with --out")
