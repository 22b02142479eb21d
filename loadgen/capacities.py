"""The capacity of a target: a run for each rate that the search tries, all in one Locust process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from math import sqrt
from pathlib import Path
from typing import Unpack

from rich.console import Console

from reports.analysis.gate_grammar import parse
from reports.analysis.quantiles import needed
from targets.target import Target
from traces.errors import InputError, RunFailed
from traces.trace import Trace

from . import preflight
from .options import Load, RunKeywords, RunOptions
from .processes import LocustProcess, Workers
from .replays import conclude, new_folder, prepare

STEP = Load(duration=30.0, warmup=5.0)
MARGIN = 1.2  # requests beyond what a quantile needs: arrivals are random


@dataclass(frozen=True, slots=True)
class CapacityStep:
    """One rate that was tried, in requests a second, and the run that says whether every gate held."""

    rate: float
    holds: bool
    folder: Path


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """`rate`: the highest seen to hold (0: none); `fails`: the lowest above it seen to fail (None: none was); both in
    requests a second. `steps`: what led to it, in the order in which they ran."""

    rate: float
    fails: float | None
    steps: tuple[CapacityStep, ...]


def capacity(
    trace: Trace | str | Path, target: Target, load: Load = STEP, *, lowest: float = 1.0, highest: float = 1000.0,
    precision: float = 0.1, workers: Workers | None = None, on_step: Callable[[CapacityStep], None] | None = None,
    **options: Unpack[RunKeywords],
) -> CapacityResult:  # fmt: skip
    """Finds the highest request rate at which every gate of `slo` holds.

    load     of each step; its rate is the search's, its duration (s) longer where a gate's percentile needs it
    lowest   rate of the first step, `highest` the one that is never exceeded (requests/s)
    precision  how close the answer must be: 0.1 is 10 %
    on_step  called after each step
    options  see `RunOptions`; `out` gets a folder for each step, named by its rate

    Raises InputError before anything is sent, RunFailed for a step without a verdict.
    """
    kept = RunOptions.of(options)
    return find(trace, target, load, (lowest, highest), precision, kept, workers or Workers(), on_step)


def find(
    trace: Trace | str | Path, target: Target, load: Load, rates: tuple[float, float], precision: float,
    options: RunOptions, workers: Workers, on_step: Callable[[CapacityStep], None] | None = None,
    extra: Sequence[str] = (), *, shown: bool = False,
) -> CapacityResult:  # fmt: skip
    """`capacity` between two rates, with options for Locust itself; `shown`: its warnings and live lines go to
    stderr."""
    if not 0 < rates[0] <= rates[1] or not precision > 0:
        raise InputError("expected 0 < lowest <= highest (--from, --to), and a precision above 0", where="capacity")
    if not " ".join(options.slo):
        raise InputError("is missing", where="--slo", remedy='for example --slo "ttft p99 < 800ms"')
    if not trace:
        raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
    preflight.check_options(options, [target.endpoint_type])
    # Its secrets are put away before the process is started that shall hold them.
    [target] = preflight.settled([target.carried().sheltered()], options.wait_ready)
    folder = new_folder("capacity", options.out)
    quantiles = [q for gate in options.slo if (q := parse(gate).q) is not None]
    requests = max(map(needed, quantiles), default=1)
    steps: list[CapacityStep] = []
    with LocustProcess(workers, extra, shown=shown) as locust:

        def holds(rate: float) -> bool:
            paced = replace(load, request_rate=rate, duration=seconds(rate, load.duration or 30.0, requests))
            kept = replace(options, out=folder / f"{rate:.3g}")
            run = prepare(trace, target, paced, kept, workers.count)
            locust.record(run)
            report = StringIO()
            code = conclude(run, Console(file=report, soft_wrap=True))
            if code not in (0, 1):
                raise RunFailed(f"no verdict at {rate:.3g} requests/s: see {run}", code=code, report=report.getvalue())
            steps.append(CapacityStep(rate, code == 0, run))
            if on_step is not None:
                on_step(steps[-1])
            return code == 0

        rate, fails = search(holds, *rates, precision)
    return CapacityResult(rate, fails, tuple(steps))


def search(
    holds: Callable[[float], bool], first: float, highest: float, precision: float = 0.1
) -> tuple[float, float | None]:
    """Doubles the rate from `first` until the gates fail, then halves the interval, in the logarithm. Gives `rate` and
    `fails` of the result. Ends when the two rates are within `precision` (0.1: 10 %) of each other, or at `highest`. A
    first rate that fails is halved until one holds, five times at most."""
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
    return good, bad


def seconds(rate: float, duration: float, requests: int) -> float:
    """A step's length: as wanted, or as long as the gates' quantiles need `requests`."""
    return max(duration, MARGIN * requests / rate)
