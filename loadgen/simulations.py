"""`simulate`: a trace through simulated endpoints in virtual time, recorded as a live run would be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from reports.analysis.gate_grammar import check
from reports.store import run_json
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
from .plan import trace_facts
from .replays import name_of, new_folder, reported

STEP = "simulate"
FLUSH = 5_000  # rows of a result file

Targets = Mapping[str, str] | Sequence[SimulatedTarget]


def simulate(
    trace: Trace | str | Path, targets: Targets, load: Load | None = None, *, model: str = "llama2-7b",
    slo: Sequence[str] = (), goodput: Sequence[str] = (), out: Path | str | None = None,
) -> Run:  # fmt: skip
    """Sends a trace through simulated endpoints in virtual time: an hour of traffic in a second, and the same `Run`.

    trace    a trace, or the name of a file or of a bundled workload
    targets  {"name": "PROFILE[,KEY=VALUE...]"}, or `SimulatedTarget`s
    load     how the trace is paced and cut; by default as it is
    model    whose sizes set the speed
    slo      gates ("ttft p99 < 800ms"); goodput: objectives ("ttft:800 tpot:40", ms)
    out      the run's folder; by default a new one in runs/

    Raises InputError for what isn't known, doesn't fit, or leaves no request to send.
    """
    options = RunOptions(slo=slo, goodput=goodput, out=out)
    folder = record_run(trace, named(targets), load or Load(), options, model=model)
    return reported(folder)


def named(targets: Targets) -> list[SimulatedTarget]:
    """The targets, each of another name. Raises InputError."""
    if isinstance(targets, Mapping):
        targets = [SimulatedTarget.parse(text, name=name) for name, text in targets.items()]
    if not targets:
        raise InputError("is missing", where="--target", remedy="a profile; `phaseload serve --list` shows them")
    check_names(targets)
    return list(targets)


def record_run(
    trace: Trace | str | Path, targets: Sequence[SimulatedTarget], load: Load, options: RunOptions, *, model: str
) -> Path:
    """Simulates all targets and writes the run's folder, which it returns; summary and report are made from it."""
    check(options.slo, options.goodput)
    endpoints = [target.build(model, load.seed, journal=True) for target in targets]
    requests = load.requests(trace)
    folder = new_folder(f"simulate-{name_of(trace)}", options.out)
    last, (warmup, end) = 0, window(load, requests)
    for number, (target, endpoint) in enumerate(zip(targets, endpoints, strict=True)):
        exchanges = virtual.simulate(
            endpoint, requests, target=target.name, step=STEP, warmup=warmup, block_tokens=requests.block_tokens
        )
        last = max(last, _record(Writer(folder, number), exchanges))
    step = StepFacts(
        STEP, load.describe(), 0, (warmup, end), last, load.warmup_s, (last - end) / NS_PER_S,
        planned={target.name: len(requests) for target in targets},
        warmup="sought" if load.warmup == "auto" else "given",
    )  # fmt: skip
    facts = RunFacts(
        name=folder.name, created=datetime.now(UTC).isoformat(timespec="seconds"), version=version("phaseload"),
        seed=load.seed, salt="none", slo=tuple(options.slo), goodput=tuple(options.goodput),
        argv=tuple(secrets.argv()), json=options.json, simulated=True, trace=trace_facts(requests),
        targets=tuple(_facts(*pair, model) for pair in zip(targets, endpoints, strict=True)), steps=(step,),
        workers=(), ended="completed", clock=ClockFacts(0), machine=machine_facts(),
    )  # fmt: skip
    run_json.write(folder, facts)
    return folder


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
