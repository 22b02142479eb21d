"""The capacity of a target: a run for each rate that the search tries, all in one Locust process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Unpack

from reports.analysis.gates import parse
from reports.analysis.quantiles import needed
from targets.target import Target
from traces.errors import InputError, RunFailed
from traces.trace import Trace

from . import preflight
from .load import Load
from .options import RunKeywords, RunOptions
from .processes import LocustProcess, Workers
from .replays import new_folder, prepare, run_report

STEP = Load(duration=30.0, warmup=5.0)
MARGIN = 1.2  # requests beyond what a quantile needs: arrivals are random


@dataclass(frozen=True, slots=True)
class Bracket:
    """`holds`: the highest rate seen to hold (0: none); `fails`: the lowest above it seen to fail (None: none was).
    Requests a second."""

    holds: float
    fails: float | None


@dataclass(frozen=True)
class Range:
    """Where the search goes: from `lowest`, never above `highest` (requests/s), until the answer is within `precision`
    (0.1: 10 %). Raises InputError."""

    lowest: float = 1.0
    highest: float = 1000.0
    precision: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest or not self.precision > 0:
            raise InputError("expected 0 < --from <= --to, and a --precision above 0", where="capacity")


@dataclass(frozen=True, slots=True)
class CapacityStep:
    """One rate that was tried, in requests a second, and the run that says whether every gate held."""

    rate: float
    holds: bool
    folder: Path


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """The answer, and the steps that led to it in the order in which they ran."""

    bracket: Bracket
    steps: tuple[CapacityStep, ...]

    @property
    def rate(self) -> float:
        """The highest rate seen to hold, requests a second; 0 where none was."""
        return self.bracket.holds


def capacity(
    trace: Trace | str,
    target: Target,
    load: Load = STEP,
    *,
    lowest: float = Range.lowest,
    highest: float = Range.highest,
    precision: float = Range.precision,
    workers: Workers | None = None,
    on_step: Callable[[CapacityStep], None] | None = None,
    **options: Unpack[RunKeywords],
) -> CapacityResult:
    """Finds the highest request rate at which every gate of `slo` holds.

    load     of each step; its rate is the search's, its duration (s) longer where a gate's percentile needs it
    lowest   rate of the first step, `highest` the one that is never exceeded (requests/s)
    precision  how close the answer must be: 0.1 is 10 %
    on_step  called after each step
    options  see `RunOptions`; `out` gets a folder for each step, named by its rate

    Raises InputError before anything is sent, RunFailed for a step without a verdict.
    """
    kept, within = RunOptions(**options), Range(lowest, highest, precision)
    return find(trace, target, load, within, kept, workers or Workers(), on_step)


def find(
    trace: Trace | str,
    target: Target,
    load: Load,
    within: Range,
    options: RunOptions,
    workers: Workers,
    on_step: Callable[[CapacityStep], None] | None = None,
    extra: Sequence[str] = (),
    *,
    shown: bool = False,
) -> CapacityResult:
    """`capacity`, with options for Locust itself; `shown`: its warnings and live lines go to stderr."""
    if not " ".join(options.slo):
        raise InputError("is missing", where="--slo", remedy='for example --slo "ttft p99 < 800ms"')
    if not trace:
        raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
    preflight.check_gates(options)
    folder = new_folder("capacity", options.out)
    quantiles = [q for gate in options.slo if (q := parse(gate).q) is not None]
    requests = max(map(needed, quantiles), default=1)
    steps: list[CapacityStep] = []
    with LocustProcess(workers, extra, shown=shown) as locust:

        def holds(rate: float) -> bool:
            paced = replace(load, request_rate=rate, duration=seconds(rate, load.duration or 30.0, requests))
            run = prepare(trace, target, paced, replace(options, out=folder / f"{rate:.3g}"), workers.count)
            locust.record(run)
            code, report = run_report(run)
            if code not in (0, 1):
                raise RunFailed(f"no verdict at {rate:.3g} requests/s: see {run}", code=code, report=report)
            steps.append(CapacityStep(rate, code == 0, run))
            if on_step is not None:
                on_step(steps[-1])
            return code == 0

        bracket = search(holds, within.lowest, within.highest, within.precision)
    return CapacityResult(bracket, tuple(steps))


def search(holds: Callable[[float], bool], first: float, highest: float, precision: float = 0.1) -> Bracket:
    """Doubles the rate from `first` until the gates fail, then halves the interval, in the logarithm.

    Ends when the two rates are within `precision` (0.1: 10 %) of each other, or at `highest`. A first rate that fails
    is halved until one holds, five times at most.
    """
    rate, good, bad = min(first, highest), 0.0, None
    while bad is None or (good == 0 and rate >= first / 32):
        if holds(rate):
            good = rate
            if bad is not None or rate >= highest:
                break
            rate = min(2 * rate, highest)
        else:
            bad = rate
            if good:
                break
            rate /= 2
    while good and bad is not None and bad > good * (1 + precision):
        middle = sqrt(good * bad)
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return Bracket(good, bad)


def seconds(rate: float, duration: float, requests: int) -> float:
    """A step's length: as wanted, or as long as the gates' quantiles need `requests`."""
    return max(duration, MARGIN * requests / rate)
