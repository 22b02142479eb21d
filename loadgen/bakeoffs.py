"""Bake-offs: the same requests to several targets, step by step; and the demonstration on simulated endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from targets.simulated.sizing import pool
from targets.target import Target
from traces.trace import NS_PER_S, Trace

from . import plan as plans
from . import planner
from .load import Load
from .plan import Plan, Step
from .run.endpoints import Embedded

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
DEMO = Load(WORKLOAD, request_rate=17.5, duration=32.0, warmup=3.0, drain_timeout=20.0, max_context=CONTEXT)
DEMO_STEPS = "0.1,1,3"
DEMO_STEP_S = 7.0


@dataclass(frozen=True)
class LoadStep:
    """A load step: its name in the report and its load."""

    name: str
    load: Load


def demonstration(given: Mapping[str, Any]) -> Load:
    """The demonstration's load, but for what the user gave; its rate is its own workload's."""
    kept = replace(DEMO, request_rate=None) if {"trace", "concurrency"} & given.keys() else DEMO
    return replace(kept, **given)


def own(given: Mapping[str, Any]) -> Load:
    """The load of the user's own targets."""
    return Load(**{"trace": WORKLOAD, **given})


def steps(load: Load, factors: Sequence[float], later_s: float | None) -> list[LoadStep]:
    """The base load and its multiples; `later_s`: the window of all but the first."""
    return [
        LoadStep("base" if factor == 1 else f"{factor:g}x", load if factor == 1 else _faster(load, factor, later_s))
        for factor in factors
    ]


def _faster(load: Load, factor: float, window: float | None) -> Load:
    faster = replace(load, duration=window if window is not None else load.duration, warmup=0.0)
    if load.concurrency is not None:
        return replace(faster, concurrency=max(1, round(load.concurrency * factor)))
    if load.request_rate is not None:
        return replace(faster, request_rate=load.request_rate * factor)
    return replace(faster, speedup=load.speedup * factor)


def plan(
    name: str, ladder: Sequence[LoadStep], specs: Sequence[Target], order: str, **rest: Any
) -> tuple[Plan, dict[str, Trace]]:
    """Phases of a bake-off: side by side (`parallel`), or each target alone (`sequential`)."""
    phases: list[Step] = []
    traces: dict[str, Trace] = {}
    for number, step in enumerate(ladder):
        file = plans.step_file(number)
        traces[file] = planner.requests(step.load)
        groups = [specs] if order == "parallel" else [[spec] for spec in specs]
        phases += [planner.phase(file, step.name, step.load, group, traces[file]) for group in groups]
    record = {**rest.pop("record", {}), "trace": planner.about(traces[plans.step_file(0)]), "order": order}
    return Plan(name, tuple(phases), seed=ladder[0].load.seed, record=record, **rest), traces


def sized(endpoints: Sequence[Embedded], load: Load, model: str = MODEL) -> list[Embedded]:
    """The endpoints with pools that the load uses to about USE."""
    trace = planner.requests(load)
    rate = len(trace) * NS_PER_S / max(trace.span, NS_PER_S) if load.request_rate is None else load.request_rate
    sample = list(trace[:SAMPLED])
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


def embedded(endpoints: Sequence[Embedded], model: str = MODEL) -> Mapping[str, Any]:
    """What run.json says of them, by name."""
    return {endpoint.name: endpoint.about(model) for endpoint in endpoints}
