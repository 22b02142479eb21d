"""The plan of a run: steps one after the other, each a set of arms side by side; an arm is a target and its requests.

`replay` is one step of one arm, a parallel bake-off a step for each load with an arm for each target, a sequential one
a step for each load and target. plan.json holds the plan, `plan/<step>.arrow` the requests of each load with their
final due instants: every worker and every target gets the same instants, whatever random numbers made them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from reports.store.run_json import AnswerFacts, EmbeddedFacts, TraceFacts
from targets.target import Target
from traces import transforms
from traces.errors import InputError
from traces.files import regular, write_whole
from traces.statistics import describe
from traces.trace import NS_PER_S, Trace, unpacked
from traces.typed_json import LEFT_OUT, from_json, to_json
from traces.words import CorpusFacts

from .options import Load

Groups = Mapping[str, Sequence[Sequence[str]]]  # step -> names of targets that run together, group after group

FILE = "plan.json"
FOLDER = "plan"
ROWS = "exchanges"


@dataclass(frozen=True)
class Arm:
    """One target and what it is sent. `concurrency`: requests in flight in all workers together."""

    target: Target
    file: str
    requests: int
    concurrency: int | None = None
    open_loop: bool = False
    retries: int = 0
    leave: float = 0.0  # the share of requests that the client cancels

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"{FOLDER}/\d+\.arrow", self.file):  # a plan may come from another machine
            raise InputError(f"{self.file!r} is no file of a plan")


@dataclass(frozen=True)
class Step:
    """Arms that run side by side. `window_s` None: the whole trace; `drain_s`: how long the last answers may take;
    `factor`: the load's multiple of the base load."""

    name: str
    arms: tuple[Arm, ...]
    load: str = ""
    warmup_s: float = 0.0
    window_s: float | None = None
    drain_s: float = 60.0
    factor: float = field(default=1.0, metadata=LEFT_OUT)
    warmup: Literal["given", "sought"] = "given"

    @property
    def warmup_ns(self) -> int:
        return round(self.warmup_s * NS_PER_S)

    @property
    def end_ns(self) -> int | None:
        """When arrivals stop, from the step's start."""
        return None if self.window_s is None else self.warmup_ns + round(self.window_s * NS_PER_S)


@dataclass(frozen=True)
class LoadStep:
    """A load before it has targets: its requests with their final instants. `factor`: its multiple of the base load;
    `sessions`: that many times the trace's sessions are among them."""

    name: str
    load: Load
    requests: Trace
    factor: float = 1.0
    sessions: float = 1.0

    def step(self, file: str, targets: Sequence[Target]) -> Step:
        """The step of a plan, whose requests are in this file, with an arm for each target."""
        load, count = self.load, len(self.requests)
        arms = tuple(
            Arm(target, file, count, load.concurrency, load.open_loop, load.retries, load.leave) for target in targets
        )
        return Step(
            self.name, arms, self.describe(), load.warmup_s, load.window_s, load.drain_timeout, self.factor,
            self.warmup,
        )  # fmt: skip

    def thinned(self, share: float) -> LoadStep:
        """A share of the step's sessions, drawn at random; the same ones for every target."""
        if share == 1:
            return self
        if self.load.concurrency is not None:
            problem = "can't thin a fixed number in flight"
            raise InputError(problem, where="--quota-scale", remedy="a smaller --concurrency")
        requests = transforms.superpose([self.requests], share, self.load.seed)
        return replace(self, requests=requests, sessions=self.sessions * share)

    @property
    def warmup(self) -> Literal["given", "sought"]:
        return "sought" if self.load.warmup == "auto" else "given"

    def describe(self) -> str:
        """The load in a few words, for reports."""
        return self.load.describe() + ("" if self.sessions == 1 else f", {self.sessions:g} times its sessions")


@dataclass(frozen=True)
class Plan:
    """A whole run. `tokenizer`: path of a tokenizer.json that makes prompts exact in its tokens; `vocabulary`: prompts
    are sent as token ids below it; `prompts`: the texts whose words they take. The fields from `slo` on are for the
    run's end, and for those who read run.json (`reports.store.run_json` explains them)."""

    name: str
    steps: tuple[Step, ...]
    seed: int = 0
    salt: str = "auto"  # "auto": the run's own; "none"; or a text
    tokenizer: str | None = None
    vocabulary: int | None = None
    prompts: CorpusFacts | None = None
    slo: tuple[str, ...] = ()
    goodput: tuple[str, ...] = ()
    trace: TraceFacts | None = None
    argv: tuple[str, ...] = ()
    order: str = "parallel"
    json: bool = False
    report: bool = True
    closing: str = ""
    embedded: Mapping[str, EmbeddedFacts] = field(default_factory=dict)  # by target
    listed: tuple[str, ...] = field(default=(), metadata=LEFT_OUT)  # targets as reports list them; as they come: ()
    evidence: tuple[AnswerFacts, ...] = ()
    quota_scale: float = field(default=1.0, metadata=LEFT_OUT)  # the share of the load's sessions that quotas admit

    def __post_init__(self) -> None:
        if not self.steps or not all(step.arms for step in self.steps):
            raise InputError("there is nothing to replay", remedy="give a trace and a target")
        targets = self.targets
        if twice := [arm.target.name for step in self.steps for arm in step.arms if arm.target not in targets]:
            raise InputError("two different targets have this name", where=twice[0])

    @property
    def targets(self) -> list[Target]:
        found = {arm.target.name: arm.target for step in self.steps for arm in step.arms}
        return [found[name] for name in dict.fromkeys((*self.listed, *found)) if name in found]


def cut(plan: Plan, seconds: float) -> Plan:
    """The plan with arrivals of its first `seconds` only. Raises InputError where nothing would be counted."""
    if len(plan.steps) > 1:
        raise InputError("can't be divided among several steps", where="--run-time", remedy="give --duration")
    [step] = plan.steps
    if seconds <= step.warmup_s:
        raise InputError(f"{seconds:g} s are over before the warm-up is ({step.warmup_s:g} s)", where="--run-time")
    window = seconds - step.warmup_s
    return replace(plan, steps=(replace(step, window_s=min(window, step.window_s or window)),))


def save(plan: Plan, traces: Mapping[str, Trace], folder: Path) -> None:
    """Writes plan.json, with all that targets need on another machine, and the arms' requests. Raises InputError."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for file, trace in traces.items():
        pack(trace, folder / file)
    put(plan, folder)


def put(plan: Plan, folder: Path) -> None:
    """Writes plan.json alone."""
    steps = [
        replace(step, arms=tuple(replace(arm, target=arm.target.carried()) for arm in step.arms)) for step in plan.steps
    ]
    write_whole(folder / FILE, to_json(replace(plan, steps=tuple(steps))))


def load(folder: Path) -> Plan:
    """The plan that `save` wrote. Raises InputError for anything else."""
    try:
        return from_json(Plan, regular(folder / FILE).read_bytes(), FILE)
    except OSError as problem:
        raise InputError(str(problem), where=str(folder)) from None


def trace_facts(trace: Trace) -> TraceFacts:
    return TraceFacts(
        trace.name, trace.source, trace.fingerprint(), len(trace), trace.span / NS_PER_S, tuple(trace.transforms),
        describe(trace), dict(trace.notes),
    )  # fmt: skip


def step_file(step: int) -> str:
    return f"{FOLDER}/{step}.arrow"


def pack(trace: Trace, path: Path) -> None:
    table = trace.packed()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def unpack(path: Path) -> Trace:
    """Memory-mapped: workers on one machine share the pages."""
    with pa.memory_map(str(path)) as source:
        return unpacked(pa.ipc.open_file(source).read_all())
