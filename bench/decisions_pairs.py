"""How often does a bake-off name a winner where there is none, and find one where there is? Virtual time, fixed seeds.

A bake-off of five rounds of 10 minutes (azure-conv lengths, Poisson arrivals, a warm-up of 120 s) between an endpoint
and itself under another name. *Unpaired*: each name has its own arrivals and lengths, so that all noise of the load
counts: the worst case. *Paired*: both get the same slices, as in a bake-off, and the endpoint itself differs from run
to run (speculative decoding, whose acceptance is drawn). A difference is made by multiplying one side's durations.

Counted are bake-offs in which any of six figures (p50 and p99 of TTFT, TPOT and E2E) names a winner, tails as if
headroom had been shown; and, of true differences of 10 % (p50) and 20 % (p99), in how many each figure finds it.

    python -m bench.decisions_pairs [--seeds 40] [--repetitions 100] [--processes 2] [--cell TEXT]...

Exits with 1 where winners are named in more than 5 % (and two standard errors) of bake-offs of equals, or where the
paired ones find less than 90 % of the differences of p50 or 80 % of p99 at 60 % use.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np
import pandas as pd

from reports.analysis import comparison
from reports.analysis.comparison import Standing
from reports.analysis.steadiness import Headroom
from reports.store.durations import HEADLINES
from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.request import NS_PER_S
from traces.transforms import cap_context, clip, pace
from traces.workload import synthesise

from ._decisions import CONTEXT, ENDPOINTS, FIRST_SEED, MODEL, ROUNDS, USES, WARMUP_S, WINDOWS_S

DRAFTING = ("h100", {"drafted": "4"}, 10.23)  # at most as many requests/s as without, to be sure that it is steady
USE = 0.6  # at which differences must be found
SLOWER = {0.5: 1.1, 0.99: 1.2}  # true ratios that must be found
POWER = {0.5: 0.9, 0.99: 0.8}
WRONG = 0.05
STANDING = Standing(False, Headroom(True, "assumed"))
FIGURES = [(metric, q) for q in SLOWER for metric in HEADLINES]


@dataclass(frozen=True)
class Arm:
    """One side of a cell: an endpoint at a share of its capacity; `engine`: the seed of what it draws itself."""

    endpoint: str
    use: float
    engine: int = 0


def record(arm: Arm, seed: int) -> pd.DataFrame:
    """A round: the counted requests, as `comparison.of_pair` takes them."""
    profile, settings, most = ENDPOINTS.get(arm.endpoint, DRAFTING)
    rate, whole = most * arm.use, WARMUP_S + WINDOWS_S[-1]
    trace = cap_context(synthesise("azure-conv", rate=rate, duration=whole, seed=seed), CONTEXT)
    trace = clip(pace(trace, rate, seed=seed), 0, whole)
    exchanges = simulate(build(profile, model=MODEL, settings=settings, seed=arm.engine), trace)
    rows = pd.DataFrame(
        [
            (e.call.due, e.ok, e.call.request.prompt_tokens, e.call.request.output_tokens, e.output_count, e.ttft,
             e.tpot, e.e2e)
            for e in exchanges
        ],
        columns=["due", "ok", "prompt_tokens", "output_tokens", "output_count", *HEADLINES],
    )  # fmt: skip
    rows = rows.sort_values("due", kind="stable", ignore_index=True)
    rows[list(HEADLINES)] = rows[list(HEADLINES)].astype(np.float64)
    rows = rows.assign(index=np.arange(len(rows)), attempt=1, counted=rows["due"] >= WARMUP_S * NS_PER_S)
    return rows[rows["counted"]]


def bakeoff(a: list[pd.DataFrame], b: list[pd.DataFrame], slower: float) -> dict[tuple[str, float], int]:
    """Of each figure: 1 where it names the first, -1 the second, 0 neither. The second is so many times slower."""
    sides = [pd.concat([part.assign(round=i) for i, part in enumerate(parts)]) for parts in (a, b)]
    sides[1][list(HEADLINES)] *= slower
    found = comparison.of_pair(*sides, "a", "b", "", (STANDING, STANDING))
    winners = {each: found.says(*each).winner for each in FIGURES}
    return {each: {"a": 1, None: 0, "b": -1}[winner] for each, winner in winners.items()}


def judged(name: str, arms: tuple[Arm, ...], seeds: int, repetitions: int) -> tuple[str, float, dict[str, list[float]]]:
    """A cell: its name, how often equals have a winner, and how often each figure of `SLOWER` is found."""
    runs = [[record(arm, FIRST_SEED + seed) for seed in range(seeds)] for arm in arms]
    rng, named, found = np.random.default_rng(FIRST_SEED), 0, dict.fromkeys(FIGURES, 0)
    for _ in range(repetitions):
        drawn = rng.choice(seeds, 2 * ROUNDS, replace=False)
        first = [runs[0][i] for i in drawn[:ROUNDS]]
        second = [runs[1][i] for i in drawn[:ROUNDS]] if len(runs) > 1 else [runs[0][i] for i in drawn[ROUNDS:]]
        named += any(bakeoff(first, second, 1.0).values())
        if arms[0].use == USE:
            for q, slower in SLOWER.items():
                says = bakeoff(first, second, slower)
                for each in FIGURES:
                    found[each] += each[1] == q and says[each] > 0
    power = {f"p{q * 100:g}": [found[metric, q] / repetitions for metric in HEADLINES] for q in SLOWER}
    return name, named / repetitions, power


def main() -> bool:
    """True where more winners are named, or fewer differences found, than docs/metrics.md promises."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions_pairs")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--cell", action="append", default=[], metavar="TEXT", help="cells whose names hold this")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    cells = [(f"paired h100, drafting {use:.0%}", (Arm("", use, 1), Arm("", use, 2))) for use in (0.3, USE)]
    cells += [(f"unpaired {name} {use:.0%}", (Arm(name, use),)) for use in USES for name in ENDPOINTS]
    cells = [cell for cell in cells if not options.cell or any(text in cell[0] for text in options.cell)]
    print(
        f"{options.seeds} seeds a cell from {FIRST_SEED}, {options.repetitions} bake-offs of {ROUNDS} rounds of "
        f"{WINDOWS_S[-1] // 60} min; found: TTFT, TPOT, E2E\n"
        f"{'cell':28}{'equals: a winner':>18}{'p50, 10 % slower':>22}{'p99, 20 % slower':>22}"
    )
    missed, wrong = False, []
    slack = 2 * sqrt(WRONG * (1 - WRONG) / options.repetitions)
    with ProcessPoolExecutor(options.processes) as pool:
        cell = partial(_cell, seeds=options.seeds, repetitions=options.repetitions)
        for name, named, power in pool.map(cell, cells):
            wrong.append(named)
            words = ["".join(f"{share:6.0%}" for share in power[q]) if f"{USE:.0%}" in name else "" for q in power]
            print(f"{name:28}{named:18.1%}{words[0]:>22}{words[1]:>22}", flush=True)
            short = any(min(power[f"p{q * 100:g}"]) < least for q, least in POWER.items())
            missed |= named > WRONG + slack or (name.startswith("paired") and f"{USE:.0%}" in name and short)
    print(f"equals have a winner in {np.mean(wrong):.1%} of all bake-offs")
    return missed


def _cell(cell: tuple[str, tuple[Arm, ...]], seeds: int, repetitions: int) -> tuple[str, float, dict[str, list[float]]]:
    return judged(*cell, seeds, repetitions)


if __name__ == "__main__":
    sys.exit(main())
