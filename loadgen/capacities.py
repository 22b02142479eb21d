"""The capacity of a target: the runs that a search asks for, all in one Locust process, or in virtual time.

Each step is a run of its own, in a folder beside capacity.json, on requests that no step before had: another seed of a
bundled workload, the next requests of a recorded trace (from its start again where it ends). All live steps share one
process and its connections. A step whose last answers were cut may leave the endpoint with a backlog: the next step
waits until a short request is answered as quickly as by the idle endpoint, PATIENCE at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

from reports.analysis.gate_grammar import Gate, parse
from reports.store import capacity_json
from reports.store.capacity_json import CapacityFacts, CapacityStep, Tally
from reports.store.capacity_json import SearchTerms as SearchTerms
from targets.simulated.build import SimulatedTarget
from targets.simulated.profiles import MODEL
from targets.target import Target
from traces import transforms
from traces.errors import InputError
from traces.reading import is_workload
from traces.trace import Trace

from . import preflight, rounds, simulations
from .options import Load, RunKeywords, RunOptions
from .plan import LoadStep
from .processes import LocustProcess, Workers
from .replays import name_of, new_folder, prepare_run, summarised
from .search import Ask, check, search

if TYPE_CHECKING:
    from reports.analysis.capacity import CapacityResult
    from reports.analysis.summary import Summary
    from reports.store.run_folder import Run

STEP = "capacity"  # the name of a run's one load step
LOAD = Load(duration=30.0, warmup=5.0)
PATIENCE = 120.0  # seconds for a backlog
QUICK = 2.0  # times the idle endpoint's TTFT: the backlog is gone
PROMPT = "one two three four five six seven eight"
SPARE = 1.2  # requests beyond those that a rate makes on average: arrivals are random

OnStep = Callable[[CapacityStep, list[Gate]], None]


def capacity(
    trace: Trace | str | Path, target: Target | SimulatedTarget, load: Load = LOAD, *, terms: SearchTerms | None = None,
    workers: Workers | None = None, on_step: OnStep | None = None, **options: Unpack[RunKeywords],
) -> CapacityResult:  # fmt: skip
    """Finds the load at which the first gate of `slo` begins to fail, as an interval.

    target   an endpoint, or a simulated one, which is searched in virtual time
    load     of each step; its rate (or number in flight) is the search's, its duration (s) the shortest step's window
    terms    what may be tried: by rate or by concurrency, from where to where, for how long
    on_step  called after each step, with the gates
    options  see `RunOptions`; `out` gets capacity.json, report.html, and a folder for each step

    Raises InputError before anything is sent, RunFailed where a step recorded nothing.
    """
    return find(trace, target, load, terms or SearchTerms(), RunOptions.of(options), workers or Workers(), on_step)


def find(
    trace: Trace | str | Path, target: Target | SimulatedTarget, load: Load, terms: SearchTerms, options: RunOptions,
    workers: Workers, on_step: OnStep | None = None, extra: Sequence[str] = (), *, model: str = MODEL,
    shown: bool = False,
) -> CapacityResult:  # fmt: skip
    """`capacity`, with options for Locust itself; `shown`: its warnings and live lines go to stderr. `model`: what a
    simulated target serves."""
    from reports.analysis import capacity as analysis
    from reports.render import capacity_page

    terms = replace(terms, step_s=load.duration or terms.step_s, warmup_s=load.warmup_s, least=workers.count)
    check(terms)
    gates = [parse(text) for text in options.slo]
    if not gates:
        raise InputError("is missing", where="--slo", remedy='for example --slo "ttft p99 < 800ms"')
    if not trace:
        raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
    analysis.check(gates, target.name)
    virtual = isinstance(target, SimulatedTarget)
    if virtual and terms.by == "concurrency":
        raise InputError("in virtual time only rates can be tried", where="--by", remedy="phaseload serve, and its URL")
    if isinstance(target, SimulatedTarget):
        preflight.check_options(options, [])
        target.build(model)
    else:  # its secrets are put away before the process is started that shall hold them
        preflight.check_options(options, [target.endpoint_type])
        [target] = preflight.settled([target.carried().sheltered()], options.wait_ready)
    slices = Slices(trace, load)
    folder = new_folder("capacity", options.out)
    facts = CapacityFacts(
        name=folder.name, created=simulations.now(), version=version("phaseload"), target=target.name,
        trace=name_of(trace), slo=tuple(options.slo), goodput=tuple(options.goodput), terms=terms, simulated=virtual,
    )  # fmt: skip
    with _endpoint(target, replace(options, report=False, json=False), workers, extra, model, shown=shown) as endpoint:
        _searched(endpoint, slices, gates, folder, facts, on_step)
    return capacity_page.reported(folder) if options.report else analysis.result(folder, capacity_json.read(folder))


def _searched(
    endpoint: Endpoint, slices: Slices, gates: list[Gate], folder: Path, facts: CapacityFacts, on_step: OnStep | None
) -> None:
    """Searches, and writes capacity.json after each step."""

    def observe(ask: Ask) -> CapacityStep:
        nonlocal facts
        began, name = time.monotonic(), f"step-{ask.number:02d}"
        endpoint.record(folder / name, slices.step(ask, facts.terms))
        run, summary = summarised(folder / name)
        lost, tallies = _tallied(summary, gates)
        backlog_s = endpoint.work_off(run)
        took = ask.warmup_s + ask.seconds if facts.simulated else time.monotonic() - began
        step = CapacityStep(ask.level, ask.seconds, took, tallies, ask.confirms, lost, name, backlog_s)
        facts = replace(facts, steps=(*facts.steps, step))
        capacity_json.write(folder, facts)
        if on_step is not None:
            on_step(step, gates)
        if run.facts.ended == "interrupted":
            raise KeyboardInterrupt
        return step

    try:
        search(observe, gates, facts.terms)
        facts = replace(facts, ended="completed")
    except KeyboardInterrupt:
        facts = replace(facts, ended="interrupted")
    capacity_json.write(folder, facts)


def _tallied(summary: Summary, gates: Sequence[Gate]) -> tuple[str, tuple[Tally, ...]]:
    """Why a step decides nothing, or the gates' requests in it."""
    from reports.analysis.capacity import tally

    invalid = [reason for reason in summary.validity.reasons if reason.status == "invalid"]
    samples = [sample for sample in summary.samples.values() if sample.n]
    if invalid or not samples:
        return invalid[0].text if invalid else "no request was counted", ()
    return "", tuple(tally(gate, samples[0]) for gate in gates)


class Slices:
    """Requests that no step had before."""

    def __init__(self, trace: Trace | str | Path, load: Load) -> None:
        self._name, self._load, self._next = str(trace), load, 0
        workload = not isinstance(trace, Trace) and is_workload(str(trace))
        self._recorded = None if workload else trace if isinstance(trace, Trace) else load.opened(str(trace))

    def step(self, ask: Ask, terms: SearchTerms) -> LoadStep:
        """A step's load, and requests of its own. Raises InputError."""
        paced = {"request_rate": ask.level} if terms.by == "rate" else {"concurrency": int(ask.level)}
        seed = rounds.seed_of(self._load.seed, ask.number)
        load = replace(self._load, **paced, duration=ask.seconds, warmup=ask.warmup_s, seed=seed)
        return LoadStep(STEP, load, load.requests(self._slice(load)))

    def _slice(self, load: Load) -> Trace:
        if self._recorded is None:
            return rounds.drawn(self._name, load, 0.0, SPARE)
        trace, needed = self._recorded, ceil(SPARE * (load.request_rate or 0) * (load.seconds or 0))
        if len(trace) and needed > len(trace):
            return transforms.repeat(trace, ceil(needed / len(trace)))
        if self._next + max(needed, len(trace) // 2) > len(trace):
            self._next = 0
        rest = transforms.limit(trace, needed or len(trace) - self._next, skip=self._next)
        self._next += len(rest) if needed else len(trace) // 8
        return rest


@contextmanager
def _endpoint(
    target: Target | SimulatedTarget, options: RunOptions, workers: Workers, extra: Sequence[str], model: str, *,
    shown: bool,
) -> Iterator[Endpoint]:  # fmt: skip
    if isinstance(target, SimulatedTarget):
        yield Virtual(target, options, model)
    else:
        with LocustProcess(workers, extra, shown=shown) as locust:
            yield Live(target, options, workers, locust)


class Endpoint(Protocol):
    """What is searched."""

    def record(self, folder: Path, step: LoadStep) -> None:
        """Records a run of this load into the folder."""

    def work_off(self, run: Run) -> float:
        """Waits for what the endpoint may still work on, where something of the run was cut; how long, in seconds."""


class Live:
    """A real endpoint, in one Locust process for all steps."""

    def __init__(self, target: Target, options: RunOptions, workers: Workers, locust: LocustProcess) -> None:
        self._target, self._options, self._workers, self._locust = target, options, workers, locust
        self._idle = self._ttft() if options.probe else inf  # seconds

    def record(self, folder: Path, step: LoadStep) -> None:
        options = replace(self._options, out=folder)
        prepare_run(STEP, [step], [self._target], options, self._workers.count)
        self._options = replace(self._options, probe=False)  # once is enough
        self._locust.record(folder)

    def work_off(self, run: Run) -> float:
        began = time.monotonic()
        if (run.rows["outcome"] == "cut").any():
            while self._ttft() > QUICK * self._idle and time.monotonic() - began < PATIENCE:
                time.sleep(0.1)
        return time.monotonic() - began

    def _ttft(self) -> float:
        """Of one short request, in seconds; inf where it wasn't answered."""
        from targets.asking import ask

        exchanges = [answer.exchange for answer in ask(self._target, [PROMPT], 1)]
        return min((each.ttft for each in exchanges if each.ok and each.ttft is not None), default=inf)


class Virtual:
    """A simulated endpoint in virtual time: each step finds it idle."""

    def __init__(self, target: SimulatedTarget, options: RunOptions, model: str) -> None:
        self._target, self._options, self._model = target, options, model

    def record(self, folder: Path, step: LoadStep) -> None:
        folder.mkdir()
        simulations.record_run(folder, [step], [self._target], self._options, model=self._model)

    def work_off(self, run: Run) -> float:
        return 0.0
