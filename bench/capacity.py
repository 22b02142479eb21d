"""How often does the interval of a capacity search hold the capacity? Simulated endpoints in virtual time, fixed seeds.

Each cell is an endpoint and a gate. Its capacity is known from long runs: the share of requests beyond the gate, of 12
runs of 20 minutes at each of 7 rates, and the rate at which that share reaches what the gate allows (`--truth` measures
it again). Printed: how often the searches of so many seeds hold it, and where it lies outside; how wide the intervals
are (upper end over lower end), and how long the searches would take against a live endpoint.

    python -m bench.capacity [--seeds 40] [--cell NAME]... [--budget 60] [--truth]
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt

import numpy as np

from loadgen.search import Ask, search
from reports.analysis import capacity, isotonic
from reports.analysis.capacity import interval, tally
from reports.analysis.gate_grammar import Gate, parse
from reports.analysis.samples import Sample, sample
from reports.store import durations
from reports.store.capacity_json import CapacityStep, SearchTerms
from targets.simulated.build import SimulatedTarget
from targets.simulated.virtual import simulate
from traces.request import NS_PER_S
from traces.transforms import cap_context, clip, pace
from traces.workload import synthesise

MODEL, CONTEXT = "llama2-7b", 4096
FIRST_SEED, TRUTH_SEED = 1_000, 9_000
TRUTHS, TRUTH_S, TRUTH_WARMUP_S, RATES = 12, 1200.0, 120.0, 7
BESIDE = 1.2  # of the known capacity, up to which the truth is looked for
COVERED = 0.9  # of the intervals hold the truth, at least


@dataclass(frozen=True)
class Cell:
    """An endpoint, a gate, and its capacity in requests/s, as `--truth` measures it."""

    profile: str
    slo: str
    capacity: float

    @property
    def gate(self) -> Gate:
        return parse(self.slo)


CELLS = {
    "h100 tight": Cell("h100", "ttft p99 < 150ms", 4.04),
    "h100 knee": Cell("h100", "ttft p99 < 800ms", 8.57),
    "h100 median": Cell("h100", "ttft p50 < 45ms", 8.03),
    "h100 decode": Cell("h100", "tpot p99 < 40ms", 8.73),
    "groqrack": Cell("groqrack,pool=7", "ttft p99 < 1500ms", 4.41),
    "hybrid": Cell("disaggregated,pool=1:6", "ttft p90 < 1s", 4.76),
}


def observed(cell: Cell, rate: float, seconds: float, warmup_s: float, seed: int) -> Sample:
    """One step in virtual time: Poisson arrivals of azure-conv lengths."""
    whole = warmup_s + seconds
    trace = cap_context(synthesise("azure-conv", rate=1.2 * rate, duration=whole + 10, seed=seed), CONTEXT)
    trace = clip(pace(trace, rate, seed=seed), 0, whole)
    window = (warmup_s * NS_PER_S, whole * NS_PER_S)
    endpoint = SimulatedTarget.parse(cell.profile).build(MODEL, seed)
    exchanges = simulate(endpoint, trace, warmup=round(window[0]))
    return sample("", "", durations.of_exchanges(exchanges, durations.SOURCES), window, {})


def share_at(cell: Cell, rate: float, seed: int) -> float:
    return tally(cell.gate, observed(cell, rate, TRUTH_S, TRUTH_WARMUP_S, seed)).share


def searched(cell: Cell, terms: SearchTerms, seed: int) -> list[CapacityStep]:
    def oracle(ask: Ask) -> CapacityStep:
        sample = observed(cell, ask.level, ask.seconds, ask.warmup_s, FIRST_SEED * seed + ask.number)
        took = ask.warmup_s + ask.seconds
        return CapacityStep(ask.level, ask.seconds, took, (tally(cell.gate, sample),), ask.confirms)

    return search(oracle, [cell.gate], terms)


def truth(cell: Cell, pool: ProcessPoolExecutor) -> float:
    """The rate at which the share of long runs reaches what the gate allows."""
    rates = cell.capacity * np.geomspace(1 / BESIDE, BESIDE, RATES)
    asked = [(cell, rate, TRUTH_SEED + seed) for rate in rates for seed in range(TRUTHS)]
    shares = np.array(list(pool.map(share_at, *zip(*asked, strict=True)))).reshape(RATES, TRUTHS).mean(axis=1)
    logs = np.log(isotonic.fit(np.maximum(shares, 1e-6), np.ones(RATES)))
    found = isotonic.crossing(rates, logs, float(np.log(capacity.allowed(cell.gate))))
    assert found is not None, f"{cell}: the capacity is not near: {shares} at {rates}"
    return found


def main() -> bool:
    """True where too few intervals hold the truth."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--cell", choices=CELLS, action="append")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes")
    parser.add_argument("--truth", action="store_true")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    terms, missed = SearchTerms(budget_s=60 * options.budget), False
    if options.truth:
        print("the rate at which long runs reach what the gate allows")
    print(f"{options.seeds} seeds a cell from {FIRST_SEED}, at most {options.budget:g} minutes")
    print(f"{'cell':12} {'truth':>7} {'both ends':>9} {'hold':>5} {'below':>6} {'above':>6} {'width p50 / p90':>16}"
          f" {'minutes p50 / p90':>18} {'steps':>6}")  # fmt: skip
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name in options.cell or CELLS:
            cell = CELLS[name]
            if options.truth:
                print(f"{name:12} {truth(cell, pool):7.3g}", flush=True)
                continue
            known = cell.capacity
            tried = list(pool.map(partial(searched, cell, terms), range(1, options.seeds + 1)))
            found = [interval([cell.gate], steps) for steps in tried]
            ended = [each for each in found if 0 < each.low < each.high < inf]
            hold = np.mean([each.low <= known <= each.high for each in found])
            above = np.mean([each.low > known for each in found])
            widths = np.quantile([each.high / each.low for each in ended] or [inf], (0.5, 0.9))
            minutes = np.quantile([sum(step.took for step in steps) / 60 for steps in tried], (0.5, 0.9))
            missed |= bool(hold < COVERED - 2 * sqrt(COVERED * (1 - COVERED) / len(found)))
            print(
                f"{name:12} {known:7.3g} {len(ended) / len(found):9.0%} {hold:5.0%} {1 - hold - above:6.0%}"
                f" {above:6.0%}"
                f" {widths[0]:8.2f} / {widths[1]:<5.2f} {minutes[0]:9.0f} / {minutes[1]:<6.0f}"
                f" {np.median([len(steps) for steps in tried]):6.0f}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    sys.exit(main())
