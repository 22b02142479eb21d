"""run.json: what a run was, and how it ended. `write` is its only writer, `read` its only reader.

Instants are integer nanoseconds from the run's start, durations seconds where a name ends in `_s`. An attribute has the
name of its JSON key, but for `steps` ("phases") and a worker's `number` ("shard"). docs/contracts.md lists the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from targets.exchange import Diagnostics
from targets.target import Target, TargetFields
from traces.errors import InputError
from traces.files import regular, write_whole
from traces.statistics import Statistics
from traces.typed_json import EMPTY, LEFT_OUT, from_json, from_plain, named, to_json
from traces.words import CorpusFacts

FILE = "run.json"

Ended = Literal["running", "completed", "interrupted", "worker_lost"]


@dataclass(frozen=True)
class TraceFacts:
    """The requests of a run; of a bake-off, those of its first step."""

    name: str
    source: str
    fingerprint: str
    requests: int
    span_s: float
    transforms: tuple[str, ...]
    profile: Statistics
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbeddedFacts:
    """A simulated endpoint that was started for the run: what it is, and where its figures come from."""

    description: str
    standing: str


@dataclass(frozen=True, kw_only=True)
class TargetFacts(TargetFields):
    """A target as it was configured, flat; the last five fields are of simulated ones, which have no `url`."""

    connect_timeout: float | None = field(default=None, metadata=LEFT_OUT)  # seconds
    first_token_timeout: float | None = field(default=None, metadata=LEFT_OUT)
    silence_timeout: float | None = field(default=None, metadata=LEFT_OUT)
    request_timeout: float | None = field(default=None, metadata=LEFT_OUT)
    embedded: bool = field(default=False, metadata=LEFT_OUT)
    description: str = field(default="", metadata=LEFT_OUT)
    standing: str = field(default="", metadata=LEFT_OUT)
    settings: dict[str, str] | None = field(default=None, metadata=LEFT_OUT)
    units: int | None = field(default=None, metadata=LEFT_OUT)  # GPUs and racks


@dataclass(frozen=True)
class StepFacts:
    """A load step: `window` holds the instants between which arrivals count (its end None: not known yet), `planned`
    and `unsent` the requests of each target; `factor` is the load's multiple of the base load. `warmup`: it was given,
    it is to be found in the rows, all of which are recorded as counted (sought), or it was, and `window` begins there
    (found)."""

    name: str
    load: str
    start: int
    window: tuple[int, int | None]
    end: int | None
    warmup_s: float
    drain_s: float
    planned: dict[str, int]
    unsent: dict[str, int] = field(default_factory=dict)
    factor: float = field(default=1.0, metadata=LEFT_OUT)
    warmup: Literal["given", "sought", "found"] = "given"


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """A process that sent; `lost`: why it is gone; `rows`: exchanges in its files."""

    number: int = field(metadata=named("shard"))
    pid: int
    host: str
    rows: int
    lost: str | None
    clock_offset_s: float | None  # None for a worker that handed nothing over
    clock_offset_error_s: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    diagnostics: Diagnostics | None = field(metadata=EMPTY)


@dataclass(frozen=True)
class ClockFacts:
    origin_ns: int  # the run's start: CLOCK_REALTIME, nanoseconds since the epoch


@dataclass(frozen=True)
class MachineFacts:
    host: str
    system: str
    cpu: str
    cores: int | None
    usable_cores: int


@dataclass(frozen=True, kw_only=True)
class AnswerFacts:
    """What a target answered to the fixed prompts (`loadgen.evidence`) before the load, in the prompts' order: a keyed
    digest of each answer's text, "" where there was no whole answer. `first` and `again` are the same of the bake-off's
    first round, where each was asked twice: how many differ there is what differs by itself. Every round has them, so
    that it speaks for itself. The key was forgotten with the process that asked."""

    target: str
    answers: tuple[str, ...]
    first: tuple[str, ...]
    again: tuple[str, ...]
    failure: str = ""  # the outcome of the first that failed


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A whole run. `created` is ISO 8601; `slo` and `goodput` are texts as the user gave them."""

    name: str
    created: str
    version: str
    seed: int
    salt: str
    prompts: CorpusFacts | None = None  # the user's own texts
    slo: tuple[str, ...] = ()
    goodput: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    order: str = "parallel"
    json: bool = False  # the summary is printed as JSON
    report: bool = True  # report.html is written
    closing: str = field(default="", metadata=LEFT_OUT)  # printed at the end
    simulated: bool = field(default=False, metadata=LEFT_OUT)  # in virtual time
    trace: TraceFacts | None
    targets: tuple[TargetFacts, ...]
    steps: tuple[StepFacts, ...] = field(metadata=named("phases"))
    workers: tuple[WorkerFacts, ...]
    ended: Ended
    machine: MachineFacts
    versions: dict[str, str] = field(default_factory=dict)
    clock: ClockFacts | None = field(default=None, metadata=LEFT_OUT)
    evidence: tuple[AnswerFacts, ...] = field(default=(), metadata=LEFT_OUT)  # of targets that were asked
    certificate_exceeded: str = ""
    quota_scale: float = field(default=1.0, metadata=LEFT_OUT)  # the share of the load's sessions that quotas admit
    missing: dict[str, int] = field(default_factory=dict)  # by target: requests that a lost worker never reported
    missing_requests: tuple[int, ...] = ()  # their indices, the first of them
    strays: int = field(default=0, metadata=LEFT_OUT)  # messages that no worker of the run has sent, dropped


def target_facts(target: Target, embedded: EmbeddedFacts | None = None) -> TargetFacts:
    """What run.json holds of a target; `embedded`: it was started for the run."""
    about = {"embedded": True, **vars(embedded)} if embedded else {}
    return from_plain(TargetFacts, target.to_json() | about, target.name)


def write(folder: Path, facts: RunFacts) -> None:
    """Writes run.json; whoever reads it meanwhile has the facts before, or these."""
    write_whole(folder / FILE, to_json(facts))


def read(folder: Path) -> RunFacts:
    """Raises InputError with file and field."""
    path = folder / FILE
    try:
        raw = regular(path).read_bytes()
    except OSError as problem:
        raise InputError(f"can't be read: {problem.strerror}", where=str(path)) from None
    return from_json(RunFacts, raw, str(path))


def unknown(name: str) -> RunFacts:
    """The facts of a run without run.json: its rows still say something, but nothing says how it ended."""
    return RunFacts(
        name=name, created="", version="", seed=0, salt="", trace=None, targets=(), steps=(), workers=(),
        ended="running", machine=MachineFacts("", "", "", None, 0),
    )  # fmt: skip
