"""`sweep`: a grid of simulations on all cores, and the planning report over them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from reports.analysis.costs import Price, Usage, dollars
from reports.analysis.gate_grammar import Gate, parse, parse_goodput
from reports.analysis.gates import exit_code, verdict
from reports.analysis.quantiles import finite
from reports.analysis.samples import Sample, sample
from reports.analysis.validity import Status
from reports.render import planning_page
from reports.render.planning_page import Planning, Point, Quantiles, Value
from reports.store import durations
from targets.linux import die_with_parent
from targets.simulated import analysis
from targets.simulated.build import Endpoint, SimulatedTarget
from targets.simulated.engine.stations import Disaggregated
from targets.simulated.virtual import simulate
from traces.errors import InputError
from traces.trace import NS_PER_S, Request, Trace

from .options import Load, RunOptions
from .replays import name_of, new_folder
from .simulations import STEP, Targets, named, window

LOADS = ("speedup", "request_rate")  # axes that change the load; all others are settings of the targets
COUNTS = ("pool", "tp", "max_batch", "chunk", "drafted", "local_below")
POINTS = 8
LARGEST = 20_000  # points of a grid
UNSWEPT = {"itl", "longest_stall", "lateness", "connect"}  # metrics that points don't keep
# By the exit code that the gates of a point alone would give; the first outcome that some point has decides.
OUTCOMES = {0: "met", 3: "no verdict", 1: "missed"}

Axes = Mapping[str, Sequence[Value]]
Loads = tuple[tuple[str, float], ...]  # the values of the axes that change the load


@dataclass(frozen=True)
class Combination:
    target: SimulatedTarget
    values: tuple[tuple[str, Value], ...]

    @property
    def loads(self) -> Loads:
        return tuple((key, float(value)) for key, value in self.values if key in LOADS)


@dataclass(frozen=True)
class Question:
    """What all points of a grid share. `objectives`: metric -> seconds."""

    model: str
    load: Load
    objectives: Mapping[str, float]
    gates: Sequence[Gate]


@dataclass(frozen=True)
class PacedRequests:
    """A trace at one load, as objects, so that points of one load don't make them again."""

    requests: list[Request]
    block_tokens: int | Mapping[int, int]
    window: tuple[int, int]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.requests) / max((self.requests[-1].due - self.requests[0].due) / NS_PER_S, 1e-9)


# By load, in every worker: workers are forked after this is filled, so nothing is copied to them.
_PACED: dict[Loads, PacedRequests] = {}


def axis(text: str) -> tuple[str, list[Value]]:
    """`KEY=A..B[:POINTS]` (evenly spaced by ratio; counts are rounded, each once) or `KEY=A,B,C`, numbers or words.

    Raises InputError."""
    key, _, values = text.partition("=")
    key = key.strip()
    mistake = InputError(f"--sweep {text}", remedy="KEY=A..B, KEY=A..B:POINTS or KEY=A,B,C, as in speedup=0.5..8")
    if not (key and values):
        raise mistake
    span = re.fullmatch(r"([^.,:]*(?:\.\d+)?)\.\.([^:]+)(?::(\d+))?", values)
    words = [value.strip() for value in values.split(",")]
    try:
        if not span:
            numbers = [float(word) for word in words]
        else:
            low, high, points = float(span[1]), float(span[2]), int(span[3] or POINTS)
            if not 0 < low < high or points < 2:
                raise mistake
            numbers = [float(f"{value:.4g}") for value in np.geomspace(low, high, points)]
            if key.rpartition(".")[2] in COUNTS:
                numbers = [float(value) for value in dict.fromkeys(map(round, numbers))]
    except ValueError:
        if key in LOADS or not all(words) or ".." in values:
            raise mistake from None
        return key, list(words)
    if not all(0 <= value < inf for value in numbers):
        raise mistake
    return key, list(numbers)


def sweep(
    trace: Trace | str | Path, targets: Targets, axes: Axes, load: Load | None = None, *, model: str = "llama2-7b",
    slo: Sequence[str] = (), goodput: Sequence[str] = (), out: Path | str | None = None,
) -> Planning:  # fmt: skip
    """Simulates every combination of the axes' values for each target, on all cores (in this process where gevent has
    patched it, as Locust has it do); writes planning.json and planning.html.

    axes     setting of a target, "speedup" or "request_rate" -> values; a target is swept over those that it knows
    slo      gates; each point has a verdict on those that concern its target

    The other arguments are `simulate`'s. Raises InputError, for what a point can't answer too.
    """
    targets, load, options = named(targets), load or Load(), RunOptions(slo=slo, goodput=goodput, out=out)
    question = Question(model, load, parse_goodput(options.goodput), [parse(text) for text in options.slo])
    _check_answerable(question, [target.name for target in targets])
    combinations = list(_combinations(targets, axes, model))
    if len(combinations) > LARGEST:
        raise InputError(f"{len(combinations):,} points", where="--sweep", remedy=f"at most {LARGEST:,}")
    _PACED.clear()
    for loads in sorted({combination.loads for combination in combinations}):
        paces: dict[str, Any] = dict(loads)
        requests = replace(load, **paces).requests(trace)
        _PACED[loads] = PacedRequests(list(requests), requests.block_tokens, window(load, requests))
    folder = new_folder(f"simulate-{name_of(trace)}", options.out)
    typical = _PACED[min(_PACED)].requests
    planning = Planning(
        folder=folder, model=model, trace=trace.name if isinstance(trace, Trace) else str(trace),
        goodput=list(options.goodput), slo=list(options.slo), axes={key: list(values) for key, values in axes.items()},
        points=_simulated(combinations, question),
        targets=[analysis.hardware(target, model, typical) for target in targets],
        crossovers=list(analysis.crossovers(targets, model, typical)),
        hybrids=[hybrid for target in targets if (hybrid := analysis.hybrid(target, model, typical))],
    )  # fmt: skip
    planning.save()
    planning_page.write(planning)
    return planning


def outcome_code(planning: Planning) -> int:
    """The exit code: with gates, 0 where some point meets all that concern it, else 3 where one can't be decided,
    else 1."""
    outcomes = {point.slo for point in planning.points}
    return next((code for code, outcome in OUTCOMES.items() if outcome in outcomes), 0)


def _check_answerable(question: Question, names: Sequence[str]) -> None:
    """Raises InputError for metrics that need the instants of all tokens, which points don't keep."""
    remedy = "leave --sweep out"
    for gate in question.gates:
        if gate.metric in UNSWEPT:
            raise InputError(f"a sweep doesn't keep {gate.metric}", where=gate.text, remedy=remedy)
        if gate.where:
            raise InputError("a sweep keeps no slices", where=gate.text, remedy=remedy)
        if gate.target not in ("", *names) or gate.step not in ("", STEP):
            raise InputError("no such target or step", where=gate.text, remedy=f"there are {', '.join(names)}")
    for metric in UNSWEPT & set(question.objectives):
        raise InputError(f"a sweep doesn't keep {metric}", where="--goodput", remedy=remedy)


def _combinations(targets: Sequence[SimulatedTarget], axes: Axes, model: str) -> Iterator[Combination]:
    used = set()
    for target in targets:
        target.build(model)
        own = [key for key, values in axes.items() if key in LOADS or _knows(target, key, values, model)]
        used |= set(own)
        for values in product(*(axes[key] for key in own)):
            yield Combination(target, tuple(zip(own, values, strict=True)))
    if unused := set(axes) - used:
        raise InputError(f"no target has a setting {min(unused)}", where="--sweep")


def _knows(target: SimulatedTarget, key: str, values: Sequence[Value], model: str) -> bool:
    try:
        for value in values:
            _set(target, ((key, value),)).build(model)
    except InputError as error:
        if error.message == f"no such setting: {key}":
            return False
        raise
    # A link plays a part in compositions only.
    return not key.startswith("link.") or isinstance(target.build(model).station, Disaggregated)


def _set(target: SimulatedTarget, values: Sequence[tuple[str, Value]]) -> SimulatedTarget:
    own = {key: value if isinstance(value, str) else f"{value:.12g}" for key, value in values if key not in LOADS}
    return replace(target, settings={**target.settings, **own})


def _simulated(combinations: Sequence[Combination], question: Question) -> list[Point]:
    """A point for each combination, in order; with a progress bar on a terminal."""
    from rich.progress import track

    measure, count = partial(_measure, question), len(combinations)
    track_all = partial(track, description="simulating", total=count, transient=True, disable=count < 4)
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):  # the pool's threads would block one another
        return list(track_all(map(measure, combinations)))
    gc.freeze()  # a collection in a worker would walk, and so copy, all the requests
    processes = min(len(os.sched_getaffinity(0)), count)
    with multiprocessing.get_context("fork").Pool(processes, _begin) as pool:
        return list(track_all(pool.imap(measure, combinations)))


def _begin() -> None:
    """A worker's start: it ends with the process that forked it."""
    die_with_parent()
    gc.disable()


def _measure(question: Question, combination: Combination) -> Point:
    """One simulation, summarised as a run's rows are: exchanges, a frame of durations, a sample, figures."""
    workload, name = _PACED[combination.loads], combination.target.name
    endpoint = _set(combination.target, combination.values).build(question.model, question.load.seed)
    exchanges = simulate(
        endpoint, workload.requests, target=name, step=STEP, warmup=workload.window[0],
        block_tokens=workload.block_tokens,
    )  # fmt: skip
    frame = durations.of_exchanges(exchanges, durations.SOURCES)
    answers = sample(name, STEP, frame, workload.window, question.objectives)
    return _point(question, combination, workload.rate, endpoint, answers)


def _point(question: Question, combination: Combination, rate: float, endpoint: Endpoint, answers: Sample) -> Point:
    verdicts = [verdict(gate, answers) for gate in question.gates if gate.target in ("", answers.target)]
    counted, answered = answers.counted, answers.answered
    span_s = (counted["done"].max() - counted["due"].min()) / NS_PER_S if len(counted) else 0.0
    in_flight = float(answers.values["e2e"].sum() / span_s) if span_s > 0 else 0.0  # Little's law
    met = len(answered) if answers.good is None else answers.good
    tokens_per_s = answers.throughput.output_tokens_per_s
    good_tokens_per_s = tokens_per_s if answers.good is None else answers.good_tokens_per_s
    a_second = Usage(1.0, answers.throughput.requests_per_s, 0.0, 0.0, tokens_per_s, good_tokens_per_s)
    cost = dollars(Price(per_hour=endpoint.price), a_second) if endpoint.price else None
    ttft, tpot, e2e = (
        Quantiles(answers.quantile(metric, 0.5).value, answers.quantile(metric, 0.99).value)
        for metric in ("ttft", "tpot", "e2e")
    )
    return Point(
        target=answers.target, values=dict(combination.values), rate=rate, requests=answers.n, failed=answers.failed,
        goodput=met / answers.n if answers.n else None, units=endpoint.units, ttft=ttft, tpot=tpot, e2e=e2e,
        queue_mean=finite(answered["server_queue"].mean()), prefill_mean=finite(answered["server_prefill"].mean()),
        transfer_mean=finite(answered["server_transfer"].fillna(0.0).mean()),
        decode_mean=finite(answered["server_decode"].mean()),
        tokens_per_s=tokens_per_s, in_flight=in_flight, dollars_per_mtok=cost.per_million_output if cost else None,
        dollars_per_good_mtok=cost.per_million_good if cost else None,
        joules_per_token=endpoint.watts / tokens_per_s if endpoint.watts and tokens_per_s else None,
        slo=OUTCOMES[exit_code(verdicts, Status.VALID)] if verdicts else None,
        gates=[verdict.as_json() for verdict in verdicts],
    )  # fmt: skip
