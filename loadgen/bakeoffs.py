"""Bake-offs: the same requests to several targets, step by step; and the demonstration on simulated endpoints.

Embedded endpoints are fresh interpreters of their own, and never outlive this process. They must not be forked:
Locust's monkey-patch would be inherited. The kernel sends each one a signal when its parent dies (PR_SET_PDEATHSIG), so
it ends with the run however that ends, kill -9 included; and each is a session of its own, so that Ctrl-C ends the run
and not the servers that it is measuring.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import TYPE_CHECKING, Any, Unpack

from reports.store.run_json import EmbeddedFacts
from targets.linux import die_with_parent
from targets.simulated.analysis import pool
from targets.simulated.build import SimulatedTarget
from targets.simulated.profiles import load as load_profile
from targets.target import Target
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from . import plan as plans
from . import preflight, replays
from .options import Load, RunKeywords, RunOptions, check_names
from .plan import LoadStep
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

START_S = 30.0  # that an endpoint may take to accept connections


@dataclass(frozen=True)
class Embedded(SimulatedTarget):
    """A simulated endpoint of a bake-off, served in real time."""

    endpoint_type: str = "chat"

    def facts(self, model: str) -> EmbeddedFacts:
        profile = load_profile(self.profile)
        pool = self.settings.get("pool", "1")
        return EmbeddedFacts(f"simulated: {profile.description}; {model}; pool {pool}", profile.standing)


# The three ways of serving that the paper compares (docs/design.md).
THREE = (
    Embedded("a100", "a100"),
    Embedded("groqrack", "groqrack", endpoint_type="groq"),
    Embedded("a100+groqrack", "disaggregated", endpoint_type="dynamo"),
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
        if len({f"{factor:g}" for factor in factors}) < len(factors):  # as the steps' names have them
            raise InputError(f"a factor comes twice in {list(factors)}", where="--steps")


def bakeoff(
    trace: Trace | str | Path | None = None, targets: Sequence[Target] = (), load: Load | None = None, *,
    steps: Sequence[float] | None = None, step_duration: float | None = None, order: str | None = None,
    workers: Workers | None = None, **options: Unpack[RunKeywords],
) -> Run:  # fmt: skip
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
    workers, kept, ladder = workers or Workers(), RunOptions.of(options), Ladder(steps, step_duration, order)
    with ExitStack() as servers:
        if targets:
            folder = prepare(trace or WORKLOAD, targets, load or Load(), ladder, kept, workers.count)
        else:
            base = load or demonstration_load({}, own_trace=trace is not None)
            folder = prepare_demonstration(trace or WORKLOAD, base, ladder, kept, workers.count, servers=servers)
        return replays.recorded(folder, workers)


def prepare(
    trace: Trace | str | Path, targets: Sequence[Target], load: Load, ladder: Ladder, options: RunOptions, workers: int
) -> Path:
    """Plans a bake-off of the user's targets: see `replays.prepare_run`."""
    check_names(targets)
    steps = steps_of(trace, load, ladder.factors or (1.0,), ladder.step_s)
    return replays.prepare_run("bakeoff", steps, targets, options, workers, order=ladder.order or "sequential")


def prepare_demonstration(
    trace: Trace | str | Path, load: Load, ladder: Ladder, options: RunOptions, workers: int, *, model: str = MODEL,
    servers: ExitStack | None = None,
) -> Path:  # fmt: skip
    """Starts the simulated endpoints and plans a bake-off of them. They end with this process, or with `servers`."""
    preflight.check_options(options, [endpoint.endpoint_type for endpoint in THREE])
    steps = steps_of(trace, load, ladder.factors or DEMO_FACTORS, ladder.step_s or DEMO_STEP_S)
    endpoints = sized(THREE, trace, load, model)
    folder = replays.new_folder("bakeoff", options.out)
    plan, traces = replays.planned(
        "bakeoff", steps, start(endpoints, model, folder / "endpoints", servers), options,
        order=ladder.order or "parallel", closing=DEMONSTRATION,
        embedded={endpoint.name: endpoint.facts(model) for endpoint in endpoints},
    )  # fmt: skip
    preflight.check(plan, workers)
    plans.save(plan, traces, folder)
    return folder


def demonstration_load(given: Mapping[str, Any], *, own_trace: bool) -> Load:
    """The demonstration's load, but for the fields that the user gave; its rate is its own workload's."""
    base = replace(DEMO, request_rate=None) if own_trace or "concurrency" in given else DEMO
    return replace(base, **given)


def steps_of(trace: Trace | str | Path, load: Load, factors: Sequence[float], step_s: float | None) -> list[LoadStep]:
    """The base load and its multiples; `step_s`: the window of all but the base."""
    loads = [(factor, load if factor == 1 else _faster(load, factor, step_s)) for factor in factors]
    return [LoadStep(step_name(factor), each, each.requests(trace), factor) for factor, each in loads]


def step_name(factor: float) -> str:
    return "base" if factor == 1 else f"{factor:g}x"


def _faster(load: Load, factor: float, step_s: float | None) -> Load:
    warmup = load.warmup if load.warmup == "auto" else 0.0
    faster = replace(load, duration=step_s if step_s is not None else load.duration, warmup=warmup)
    if load.concurrency is not None:
        return replace(faster, concurrency=max(1, round(load.concurrency * factor)))
    if load.request_rate is not None:
        return replace(faster, request_rate=load.request_rate * factor)
    return replace(faster, speedup=load.speedup * factor)


def sized(endpoints: Sequence[Embedded], trace: Trace | str | Path, load: Load, model: str = MODEL) -> list[Embedded]:
    """The endpoints with pools that the load uses to about USE."""
    requests = load.requests(trace)
    rate = load.request_rate or len(requests) * NS_PER_S / max(requests.span, NS_PER_S)
    sample = list(requests[:SAMPLED])
    pools = [pool(each.profile, sample, rate, use=USE, model=model, settings=each.settings) for each in endpoints]
    return [
        replace(each, settings={**each.settings, "pool": size}) for each, size in zip(endpoints, pools, strict=True)
    ]


def start(endpoints: Sequence[Embedded], model: str, folder: Path, servers: ExitStack | None = None) -> list[Target]:
    """Starts all of them side by side; their logs go into `folder`. They end with this process, or with `servers`.
    Raises InputError where one doesn't come up."""
    folder.mkdir(parents=True, exist_ok=True)
    started = [(each, log := folder / f"{each.name}.log", _spawn(each, model, log)) for each in endpoints]
    if servers is not None:
        for _, _, process in started:
            servers.callback(process.wait)
            servers.callback(process.terminate)
    return [_ready(endpoint, process, log, model) for endpoint, log, process in started]


def _spawn(endpoint: Embedded, model: str, path: Path) -> Popen[bytes]:
    settings = [f"--set={key}={value}" for key, value in endpoint.settings.items()]
    command = [sys.executable, "-P", "-m", "targets.simulated", endpoint.profile, "--model", model, *settings]
    with path.open("wb") as log:
        return Popen(
            command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )


def _ready(endpoint: Embedded, process: Popen[bytes], log: Path, model: str) -> Target:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                url, kind = str(json.loads(line)["url"]), endpoint.endpoint_type
                built = endpoint.build(model)
                return Target(endpoint.name, url, model, kind, price_per_hour=built.price, watts=built.watts)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    last_line = (log.read_text(errors="replace").strip().splitlines() or ["its log is empty"])[-1]
    raise InputError(f"the embedded endpoint didn't start: {last_line}", where=endpoint.name)
