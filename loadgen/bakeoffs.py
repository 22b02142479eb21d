"""Bake-offs: the same requests to several targets, step by step; and the demonstration on simulated endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reports.store.run_json import EmbeddedFacts
from targets.simulated.analysis import pool
from targets.target import Target
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from . import endpoints, preflight, replays
from . import plan as plans
from .endpoints import Embedded
from .load import Load
from .options import RunKeywords, RunOptions
from .plan import Plan, Step
from .processes import Workers

if TYPE_CHECKING:
    from reports.store.run_folder import Run

DEMONSTRATION = (
    "This was a demonstration: the endpoints were simulated on this machine. Their constants and where they come from "
    "are in the report; put your own in their place with --target NAME=URL."
)
ORDERS = ("parallel", "sequential")
MODEL = "llama2-7b"
CONTEXT = 4096
USE = 0.6  # of each pool at the base rate
SAMPLED = 2000  # requests from which the pools' sizes are computed

# The three ways of serving that the paper compares (docs/design.md).
THREE = (
    Embedded("a100", "a100", "chat"),
    Embedded("groqrack", "groqrack", "groq"),
    Embedded("a100+groqrack", "disaggregated", "dynamo"),
)
# A light step, where each GPU has one sequence at a time; at least 500 counted requests in the base step, so that p99
# can be bounded; and an overload. All of it within 100 s on two cores.
WORKLOAD = "azure-conv"
DEMO = Load(request_rate=17.5, duration=32.0, warmup=3.0, drain_timeout=20.0, max_context=CONTEXT)
DEMO_FACTORS = (0.1, 1.0, 3.0)
DEMO_STEP_S = 7.0


@dataclass(frozen=True)
class Ladder:
    """A bake-off's load steps and their order: the base load times each factor, each step but the base `step_s` long;
    targets side by side ("parallel") or each alone ("sequential"). None: as the kind of bake-off has it."""

    factors: Sequence[float] | None = None
    step_s: float | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        if self.order not in (None, *ORDERS):
            raise InputError(f"no such choice: {self.order!r}", where="--order", remedy=f"one of {', '.join(ORDERS)}")
        factors = self.factors if self.factors is not None else (1.0,)
        if not factors or any(not 0 < factor < inf for factor in factors):
            raise InputError(f"expected positive factors such as 1,2,4, got {list(factors)}", where="--steps")
        if len(set(factors)) < len(factors):
            raise InputError(f"a factor comes twice in {list(factors)}", where="--steps")


@dataclass(frozen=True)
class LoadStep:
    """A load step: its name in the report and its load."""

    name: str
    load: Load


def bakeoff(
    trace: Trace | str | None = None,
    targets: Sequence[Target] = (),
    load: Load | None = None,
    *,
    steps: Sequence[float] | None = None,
    step_duration: float | None = None,
    order: str | None = None,
    workers: Workers | None = None,
    **options: Unpack[RunKeywords],
) -> Run:
    """Replays one trace against several targets, step by step, and returns what was recorded.

    trace          a trace or its name; by default the bundled azure-conv
    targets        by default a demonstration: three simulated endpoints of this machine
    load           of the base step
    steps          factors of the load: 1, 2, 4 (only the base; in the demonstration 0.1, 1, 3)
    step_duration  seconds of each step but the base
    order          "sequential", each target alone (the default for targets of one's own), or "parallel"
    options        see `RunOptions`

    Ctrl-C and exceptions as for `replay`.
    """
    workers, kept, ladder = workers or Workers(), RunOptions(**options), Ladder(steps, step_duration, order)
    with ExitStack() as servers:
        if targets:
            folder = prepare(trace or WORKLOAD, targets, load or Load(), ladder, kept, workers.count)
        else:
            base = load or demonstration_load({}, own_trace=trace is not None)
            folder = prepare_demonstration(trace or WORKLOAD, base, ladder, kept, workers.count, servers=servers)
        return replays.recorded(folder, workers)


def prepare(
    trace: Trace | str,
    targets: Sequence[Target],
    load: Load,
    ladder: Ladder,
    options: RunOptions,
    workers: int,
) -> Path:
    """Plans a bake-off of the user's targets, looks at them, and saves the plan in the run's folder: returned."""
    preflight.check_options(options, [target.endpoint_type for target in targets])
    targets = preflight.settled(targets, options.wait_ready)
    loads = steps_of(load, ladder.factors or (1.0,), ladder.step_s)
    plan, traces = planned(trace, loads, targets, options, order=ladder.order or "sequential")
    preflight.check(plan, workers, targets, options.wait_ready, options.probe)
    folder = replays.new_folder(plan.name, options.out)
    plans.save(plan, traces, folder)
    return folder


def prepare_demonstration(
    trace: Trace | str,
    load: Load,
    ladder: Ladder,
    options: RunOptions,
    workers: int,
    *,
    model: str = MODEL,
    servers: ExitStack | None = None,
) -> Path:
    """Starts the simulated endpoints and plans a bake-off of them. They end with this process, or with `servers`."""
    preflight.check_options(options, [endpoint.endpoint_type for endpoint in THREE])
    loads = steps_of(load, ladder.factors or DEMO_FACTORS, ladder.step_s or DEMO_STEP_S)
    field = sized(THREE, trace, load)
    folder = replays.new_folder("bakeoff", options.out)
    targets = endpoints.start(field, model, folder / "endpoints", servers)
    about = {endpoint.name: endpoint.facts(model) for endpoint in field}
    plan, traces = planned(
        trace, loads, targets, options, order=ladder.order or "parallel", embedded=about, closing=DEMONSTRATION
    )
    preflight.check(plan, workers)
    plans.save(plan, traces, folder)
    return folder


def demonstration_load(given: Mapping[str, Any], *, own_trace: bool) -> Load:
    """The demonstration's load, but for the fields that the user gave; its rate is its own workload's."""
    base = replace(DEMO, request_rate=None) if own_trace or "concurrency" in given else DEMO
    return replace(base, **given)


def steps_of(load: Load, factors: Sequence[float], step_s: float | None) -> list[LoadStep]:
    """The base load and its multiples; `step_s`: the window of all but the base."""
    return [
        LoadStep("base" if factor == 1 else f"{factor:g}x", load if factor == 1 else _faster(load, factor, step_s))
        for factor in factors
    ]


def _faster(load: Load, factor: float, step_s: float | None) -> Load:
    faster = replace(load, duration=step_s if step_s is not None else load.duration, warmup=0.0)
    if load.concurrency is not None:
        return replace(faster, concurrency=max(1, round(load.concurrency * factor)))
    if load.request_rate is not None:
        return replace(faster, request_rate=load.request_rate * factor)
    return replace(faster, speedup=load.speedup * factor)


def planned(
    trace: Trace | str,
    loads: Sequence[LoadStep],
    targets: Sequence[Target],
    options: RunOptions,
    *,
    order: str,
    closing: str = "",
    embedded: Mapping[str, EmbeddedFacts] | None = None,
) -> tuple[Plan, dict[str, Trace]]:
    """The plan of a bake-off and its requests by file. `order`: a step has all targets ("parallel"), or each target has
    a step of its own ("sequential")."""
    steps: list[Step] = []
    traces: dict[str, Trace] = {}
    for number, step in enumerate(loads):
        file = plans.step_file(number)
        traces[file] = step.load.requests(trace)
        groups = [targets] if order == "parallel" else [[target] for target in targets]
        steps += [plans.step_of(file, step.name, step.load, group, traces[file]) for group in groups]
    first = traces[plans.step_file(0)]
    seed = loads[0].load.seed
    plan = replays.plan_of("bakeoff", steps, first, seed, options, order=order, closing=closing, embedded=embedded)
    return plan, traces


def sized(endpoints: Sequence[Embedded], trace: Trace | str, load: Load, model: str = MODEL) -> list[Embedded]:
    """The endpoints with pools that the load uses to about USE."""
    requests = load.requests(trace)
    rate = load.request_rate
    if rate is None:
        rate = len(requests) * NS_PER_S / max(requests.span, NS_PER_S)
    sample = list(requests[:SAMPLED])
    return [
        replace(
            endpoint,
            settings={
                **endpoint.settings,
                "pool": pool(endpoint.profile, sample, rate, use=USE, model=model, settings=endpoint.settings),
            },
        )
        for endpoint in endpoints
    ]
