"""The capacity of a target: a run for each rate that the search tries, all in one Locust process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from reports.analysis.gates import parse
from reports.analysis.quantiles import needed
from targets.target import Target
from traces.errors import InputError, RunFailed
from traces.trace import Trace

from . import preflight
from .capacity_search import Bracket, Range, search, seconds
from .load import Load
from .options import RunKeywords, RunOptions
from .processes import LocustProcess, Workers
from .replays import new_folder, prepare, run_report

STEP = Load(duration=30.0, warmup=5.0)


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
