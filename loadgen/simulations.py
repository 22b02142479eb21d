"""`simulate`: a trace through simulated endpoints in virtual time, recorded as a live run would be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from reports.analysis.gate_grammar import check
from reports.store import rounds_json, run_json
from reports.store.rounds_json import RoundFacts, RoundsFacts
from reports.store.row_files import Writer
from reports.store.run_folder import Run
from reports.store.run_json import ClockFacts, RunFacts, StepFacts, TargetFacts
from targets import secrets
from targets.exchange import Exchange
from targets.simulated import virtual
from targets.simulated.build import Endpoint, SimulatedTarget
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from .certificate import machine_facts
from .options import Load, RunOptions, check_names
from .plan import LoadStep, trace_facts
from .replays import name_of, new_folder, reported
from .rounds import Ladder, rounds_of, steps_of, windowed

STEP = "simulate"
BASE = Ladder()
FLUSH = 5_000  # rows of a result file

Targets = Mapping[str, str] | Sequence[SimulatedTarget]


def simulate(
    trace: Trace | str | Path, targets: Targets, load: Load | None = None, *, model: str = "llama2-7b",
    rounds: int = 1, round_duration: float | None = None, load_factors: Sequence[float] = (1.0,),
    slo: Sequence[str] = (), goodput: Sequence[str] = (), slo_file: Path | str | None = None,
    out: Path | str | None = None,
) -> Run:  # fmt: skip
    """Sends a trace through simulated endpoints in virtual time: an hour of traffic in a second, and the same `Run`.

    trace    a trace, or the name of a file or of a bundled workload
    targets  {"name": "PROFILE[,KEY=VALUE...]"}, or `SimulatedTarget`s
    load     how the trace is paced and cut; by default as it is
    model    whose sizes set the speed
    rounds   so many, each on another slice of the trace or another seed of the workload
    round_duration  seconds of a round's window (600, where the load has no duration)
    load_factors    load steps: the base load with so many times the trace's sessions
    slo      gates ("ttft p99 < 800ms"); goodput: objectives ("ttft:800 tpot:40", ms); slo_file: a slo.toml with both
    out      the run's folder; by default a new one in runs/

    Raises InputError for what isn't known, doesn't fit, or leaves no request to send.
    """
    options = RunOptions(slo=slo, goodput=goodput, slo_file=slo_file, out=out)
    load, ladder = windowed(load or Load(), round_duration), Ladder(load_factors)
    return reported(record(trace, named(targets), load, options, model=model, ladder=ladder, rounds=rounds))


def named(targets: Targets) -> list[SimulatedTarget]:
    """The targets, each of another name. Raises InputError."""
    if isinstance(targets, Mapping):
        targets = [SimulatedTarget.parse(text, name=name) for name, text in targets.items()]
    if not targets:
        raise InputError("is missing", where="--target", remedy="a profile; `phaseload serve --list` shows them")
    check_names(targets)
    return list(targets)


def record(
    trace: Trace | str | Path, targets: Sequence[SimulatedTarget], load: Load, options: RunOptions, *, model: str,
    ladder: Ladder = BASE, rounds: int = 1,
) -> Path:  # fmt: skip
    """Simulates all targets and writes the folder of the run, or of the series of rounds, which it returns; summary
    and report are made from it."""
    check(options.slo, options.goodput)
    for target in targets:
        target.build(model, load.seed)
    about = f"simulate-{name_of(trace)}"
    if rounds == 1:
        steps = steps_of(trace, load, ladder) if ladder != BASE else [LoadStep(STEP, load, load.requests(trace))]
        folder = new_folder(about, options.out)
        record_run(folder, steps, targets, options, model=model)
        return folder
    each = rounds_of(trace, load, ladder, rounds)
    folder, origin = new_folder(about, options.out), 0
    facts = RoundsFacts(
        name=folder.name, created=now(), version=version("phaseload"), seed=load.seed, planned=rounds,
        order="parallel", why="in virtual time none takes anything from another", factors=tuple(ladder.factors),
        loads="speedup" if ladder.speedup else "sessions", simulated=True,
    )  # fmt: skip
    for number, steps in enumerate(each, 1):
        round_folder = rounds_json.round_folder(folder, number)
        round_folder.mkdir()
        origin += record_run(round_folder, steps, targets, options, model=model, origin=origin)
        facts = replace(facts, rounds=(*facts.rounds, RoundFacts(number, steps[0].load.seed)))
        rounds_json.write(folder, facts)
    rounds_json.write(folder, replace(facts, ended="completed"))
    return folder


def record_run(
    folder: Path, steps: Sequence[LoadStep], targets: Sequence[SimulatedTarget], options: RunOptions, *, model: str,
    origin: int = 0,
) -> int:  # fmt: skip
    """Simulates the steps, one after the other, and writes a run's folder. `origin`: the run's start, in ns of virtual
    time; returns how long the run was, in ns."""
    first, start, recorded = steps[0], 0, list[StepFacts]()
    writers = [Writer(folder, number) for number in range(len(targets))]
    endpoints: list[Endpoint] = []
    for each in steps:
        requests, (warmup, end) = each.requests, window(each.load, each.requests)
        moved = requests.with_columns(due=requests.column("due") + start) if start else requests
        endpoints = [target.build(model, each.load.seed, journal=True) for target in targets]
        last = start
        for target, endpoint, writer in zip(targets, endpoints, writers, strict=True):
            exchanges = virtual.simulate(
                endpoint, moved, target=target.name, step=each.name, warmup=start + warmup,
                block_tokens=requests.block_tokens,
            )  # fmt: skip
            last = max(last, _record(writer, exchanges))
        recorded.append(StepFacts(
            each.name, each.describe(), start, (start + warmup, start + end), last, each.load.warmup_s,
            max(0, last - start - end) / NS_PER_S, planned={target.name: len(requests) for target in targets},
            factor=each.factor, warmup=each.warmup,
        ))  # fmt: skip
        start = max(last, start + end)
    facts = RunFacts(
        name=folder.name, created=now(), version=version("phaseload"), seed=first.load.seed, salt="none",
        slo=tuple(options.slo), goodput=tuple(options.goodput), argv=tuple(secrets.argv()), json=options.json,
        simulated=True, trace=trace_facts(first.requests),
        targets=tuple(_facts(*pair, model) for pair in zip(targets, endpoints, strict=True)), steps=tuple(recorded),
        workers=(), ended="completed", clock=ClockFacts(origin), machine=machine_facts(),
    )  # fmt: skip
    run_json.write(folder, facts)
    return start


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def window(load: Load, requests: Trace) -> tuple[int, int]:
    """Instants, in ns, between which arrivals count."""
    return round(load.warmup_s * NS_PER_S), round(load.seconds * NS_PER_S) if load.seconds else requests.span


def _record(writer: Writer, exchanges: Iterable[Exchange]) -> int:
    """Writes them as rows; returns their last instant, in ns."""
    last = 0
    for exchange in exchanges:
        last = max(last, exchange.done or 0)
        writer.append(exchange)
        if len(writer) >= FLUSH:
            writer.flush()
    writer.flush()
    return last


def _facts(target: SimulatedTarget, endpoint: Endpoint, model: str) -> TargetFacts:
    return TargetFacts(
        name=target.name, model=model, endpoint_type="simulated in virtual time", embedded=True,
        description=f"simulated: {endpoint.profile.description}; {model}", standing=endpoint.profile.standing,
        settings=dict(target.settings), units=endpoint.units, price_per_hour=endpoint.price, watts=endpoint.watts,
    )  # fmt: skip
