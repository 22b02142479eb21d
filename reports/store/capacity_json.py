"""capacity.json: what a capacity search was asked, and each of its steps; their runs lie in folders beside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Literal

from traces.errors import InputError
from traces.files import regular, write_whole
from traces.typed_json import from_json, to_json

FILE = "capacity.json"
UNITS = {"rate": "requests/s", "concurrency": "requests in flight"}
By = Literal["rate", "concurrency"]


@dataclass(frozen=True, slots=True)
class Tally:
    """One gate's requests in one step, by batch of its window: how many there were, and how many lay beyond the gate.
    `worth`: the independent requests that they are worth by how slow ones cluster."""

    sizes: tuple[int, ...]
    beyond: tuple[int, ...]
    worth: float

    @property
    def n(self) -> int:
        return sum(self.sizes)

    @property
    def share(self) -> float:
        return sum(self.beyond) / self.n if self.n else nan


@dataclass(frozen=True, slots=True)
class CapacityStep:
    """One step of a search. `level`: its load, in requests a second or in flight; `seconds`: its window, of `took`
    altogether; `confirms`: it was there to confirm; `tallies`: one a gate, none where the run decides nothing, for the
    reason `lost`. `folder`: its run, beside capacity.json; `backlog_s`: how long the endpoint then took to work off
    what was cut."""

    level: float
    seconds: float
    took: float
    tallies: tuple[Tally, ...]
    confirms: bool = False
    lost: str = ""
    folder: str = ""
    backlog_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """What may be tried. Levels are requests/s, or, by concurrency, requests in flight; all times are seconds.
    `precision`: 0.1 is 10 %; `step_s`: a step's window at least, `max_step_s` at most; `warmup_s`: before it, at least;
    `budget_s`: all of it; `least`: requests in flight, of which each worker needs one. Raises InputError."""

    lowest: float = 1.0
    highest: float = 1000.0
    precision: float = 0.1
    step_s: float = 30.0
    warmup_s: float = 5.0
    max_step_s: float = 180.0
    budget_s: float = 3600.0
    by: By = "rate"
    least: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.lowest <= self.highest < float("inf") and 0 < self.precision < float("inf")):
            raise InputError("expected 0 < lowest <= highest (--from, --to), and a precision above 0", where="capacity")


@dataclass(frozen=True)
class CapacityFacts:
    """A whole search. `slo`: its gates; `goodput`: the objectives of those on goodput. `ended`: "running" until it is
    over, "interrupted" by the user; `simulated`: in virtual time."""

    name: str
    created: str
    version: str
    target: str
    trace: str
    slo: tuple[str, ...]
    goodput: tuple[str, ...]
    terms: SearchTerms
    steps: tuple[CapacityStep, ...] = ()
    ended: Literal["running", "completed", "interrupted"] = "running"
    simulated: bool = False


def write(folder: Path, facts: CapacityFacts) -> None:
    """Whoever reads it meanwhile has the facts before, or these."""
    write_whole(folder / FILE, to_json(facts))


def read(folder: Path) -> CapacityFacts:
    """Raises InputError with file and field."""
    path = folder / FILE
    try:
        raw = regular(path).read_bytes()
    except OSError as problem:
        raise InputError(f"can't be read: {problem.strerror}", where=str(path)) from None
    return from_json(CapacityFacts, raw, str(path))
