"""The plan of a run: phases one after the other, each a set of legs side by side; a leg is a target and its trace.

`replay` is one phase of one leg, a parallel bake-off one phase a load step with a leg a target, a sequential one a
phase a target. plan.json holds the plan, `plan/<step>.arrow` the requests of each load step with their final due
instants: every worker and every target gets the same instants, whatever random numbers made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from targets.target import Target
from traces.errors import InputError
from traces.statistics import describe
from traces.trace import NS_PER_S, Trace, unpacked
from traces.typed_json import to_plain

from .load import Load

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


@dataclass(frozen=True)
class Step:
    """Legs that run side by side. `window_s` None: the whole trace; `drain_s`: how long the last answers may take."""

    name: str
    legs: tuple[Arm, ...]
    load: str = ""
    warmup_s: float = 0.0
    window_s: float | None = None
    drain_s: float = 60.0

    @property
    def warmup(self) -> int:
        return round(self.warmup_s * NS_PER_S)

    @property
    def end(self) -> int | None:
        """When arrivals stop, nanoseconds from the phase's start."""
        return None if self.window_s is None else self.warmup + round(self.window_s * NS_PER_S)


@dataclass(frozen=True)
class Plan:
    """A whole run. `tokenizer`: path of a tokenizer.json that makes prompts exact in its tokens; `vocabulary`: prompts
    are sent as token ids below it; `prompts`: `Corpus.about()` of the texts whose words they take. `record` goes into
    run.json as it is: argv, seed, trace, slo, order, ..."""

    name: str
    phases: tuple[Step, ...]
    seed: int = 0
    salt: str = "auto"  # "auto": the run's own; "none"; or a text
    tokenizer: str | None = None
    vocabulary: int | None = None
    prompts: dict[str, Any] | None = None
    slo: tuple[str, ...] = ()
    goodput: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.phases or not all(phase.legs for phase in self.phases):
            raise InputError("there is nothing to replay", remedy="give a trace and a target")

    @property
    def targets(self) -> list[Target]:
        """Each target once, in the order of its first leg."""
        return list({leg.target.name: leg.target for phase in self.phases for leg in phase.legs}.values())

    def dumps(self) -> bytes:
        plan = asdict(self)
        for phase, step in zip(plan["phases"], self.phases, strict=True):
            for leg, arm in zip(phase["legs"], step.legs, strict=True):
                leg["target"] = arm.target.to_json()
        return orjson.dumps(plan, option=orjson.OPT_INDENT_2)


def cut(plan: Plan, seconds: float) -> Plan:
    """The plan with arrivals of its first `seconds` only. Raises InputError where nothing would be counted."""
    if len(plan.phases) > 1:
        raise InputError("can't be divided among several phases", where="--run-time", remedy="give --duration")
    [phase] = plan.phases
    if seconds <= phase.warmup_s:
        raise InputError(f"{seconds:g} s are over before the warm-up is ({phase.warmup_s:g} s)", where="--run-time")
    window = seconds - phase.warmup_s
    return replace(plan, phases=(replace(phase, window_s=min(window, phase.window_s or window)),))


def loads(data: bytes | str) -> Plan:
    """The plan that `dumps` wrote. InputError for anything else."""
    try:
        raw = orjson.loads(data)
        phases = tuple(_phase(phase) for phase in raw.pop("phases"))
        return Plan(phases=phases, **_tuples(Plan, raw))
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(f"not a plan: {problem}", where=FILE) from None


def _phase(raw: dict[str, Any]) -> Step:
    legs = tuple(Arm(target=Target.from_json(leg.pop("target")), **leg) for leg in raw.pop("legs"))
    return Step(legs=legs, **raw)


def _tuples(kind: type, raw: dict[str, Any]) -> dict[str, Any]:
    """JSON lists as the tuples that a dataclass declares."""
    declared = {f.name for f in fields(kind) if str(f.type).startswith("tuple")}
    return {name: tuple(value) if name in declared else value for name, value in raw.items()}


def save(plan: Plan, traces: dict[str, Trace], folder: Path) -> None:
    """Writes plan.json, custom formats in it, and the legs' requests into the run's folder. Raises InputError."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for file, trace in traces.items():
        pack(trace, folder / file)
    (folder / FILE).write_bytes(_carrying(plan).dumps())


def _carrying(plan: Plan) -> Plan:
    """The plan with all that its targets need on another machine."""

    def phase(one: Step) -> Step:
        return replace(one, legs=tuple(replace(leg, target=leg.target.carried()) for leg in one.legs))

    return replace(plan, phases=tuple(map(phase, plan.phases)))


def load(folder: Path) -> Plan:
    try:
        return loads((folder / FILE).read_bytes())
    except OSError as problem:
        raise InputError(str(problem), where=str(folder)) from None


def step_of(file: str, name: str, load: Load, targets: Sequence[Target], trace: Trace) -> Step:
    """A step that sends the same requests, those of `file`, to every target."""
    legs = tuple(
        Arm(target, file, len(trace), load.concurrency, load.open_loop, load.retries, load.leave) for target in targets
    )
    return Step(name, legs, load.describe(), load.warmup, load.duration, load.drain_timeout)


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
        "profile": to_plain(describe(trace)),
    }


def step_file(step: int) -> str:
    """Where the requests of a load step lie, below the run's folder."""
    return f"{FOLDER}/{step}.arrow"


def pack(trace: Trace, path: Path) -> None:
    """A leg's requests as an Arrow file."""
    table = trace.packed()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def unpack(path: Path) -> Trace:
    """Memory-mapped: workers on one machine share the pages."""
    with pa.memory_map(str(path)) as source:
        return unpacked(pa.ipc.open_file(source).read_all())
