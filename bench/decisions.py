"""How often is what we print about certainty right? Endpoints of known truth in virtual time, fixed seeds.

Each cell is an endpoint at a share of its capacity, under Poisson arrivals or the workload's own bursts: azure-conv
lengths, a warm-up of 120 s, the window's first 2 and 10 minutes. The truth is the quantile of all seeds' requests
together. Printed for TTFT p50 and p99: how many windows have an interval, how many of these hold the truth (beside the
interval for independent requests, which was printed once), what the requests are worth, and the verdicts of gates
whose limit is beside the truth.

    python -m bench.decisions [--seeds 60] [--endpoint NAME]... [--use SHARE]... [--arrivals poisson | own]...
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import inf, isnan, sqrt

import numpy as np
import numpy.typing as npt
from traces.synthesis.workload import synthesise

from reports.analysis import quantiles
from reports.analysis.quantiles import BATCHES, Ordered, Quantile, Share
from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.request import NS_PER_S
from traces.transforms import cap_context, clip, pace

WARMUP_S, WINDOWS_S = 120, (120, 600)
MODEL, CONTEXT = "llama2-7b", 4096
FIRST_SEED = 1000
# name: profile, settings, requests/s of azure-conv that it carries at most
ENDPOINTS: dict[str, tuple[str, dict[str, str], float]] = {
    "h100": ("h100", {}, 10.23),
    "groqrack x7": ("groqrack", {"pool": "7"}, 6.51),
    "a100": ("a100", {}, 3.71),
    "hybrid 1:6": ("disaggregated", {"pool": "1:6"}, 6.52),
}
USES = (0.3, 0.6, 0.8)
STEADY = 0.6  # the share of its capacity up to which what is printed must hold
BESIDE = (0.7, 0.9, 1.1, 1.4)  # limits of gates, as multiples of the truth
FALSE, COVERED = 0.05, 0.90  # at most so many false verdicts, at least so many intervals that hold the truth


@dataclass(frozen=True)
class Cell:
    """One endpoint at one load."""

    endpoint: str
    use: float
    arrivals: str


@dataclass(frozen=True)
class Window:
    """What one run counted: due instants (ns) and TTFT (s; a failure is inf)."""

    due: npt.NDArray[np.int64]
    ttft: npt.NDArray[np.float64]

    def first(self, seconds: float) -> Ordered:
        window = (WARMUP_S * NS_PER_S, (WARMUP_S + seconds) * NS_PER_S)
        kept = self.due < window[1]
        batch, values = quantiles.batch_of(self.due[kept], window), self.ttft[kept]
        failed = np.bincount(batch[np.isinf(values)], minlength=BATCHES)
        return Ordered.of(values, batch, failed, seconds)


def run(cell: Cell, seed: int) -> Window:
    """One run of the cell."""
    profile, settings, most = ENDPOINTS[cell.endpoint]
    rate, whole = most * cell.use, WARMUP_S + WINDOWS_S[-1]
    trace = cap_context(synthesise("azure-conv", rate=rate, duration=whole, seed=seed), CONTEXT)
    if cell.arrivals == "poisson":
        trace = clip(pace(trace, rate, seed=seed), 0, whole)
    exchanges = simulate(build(profile, model=MODEL, settings=settings), trace)
    rows = sorted((each.call.due, each.ttft if each.ok and each.ttft is not None else inf) for each in exchanges)
    counted = [(due, ttft) for due, ttft in rows if due >= WARMUP_S * NS_PER_S]
    return Window(np.array([due for due, _ in counted], np.int64), np.array([ttft for _, ttft in counted]))


def holds(figure: Quantile, truth: float) -> bool:
    return figure.low <= truth <= figure.high


def independent(ordered: Ordered, q: float, truth: float) -> bool:
    """Does the interval for independent requests hold the truth?"""
    ranks, values = quantiles.ranks(ordered.n, q), np.append(ordered.values, np.full(int(ordered.failed.sum()), inf))
    return ranks is not None and bool(values[ranks[0] - 1] <= truth <= values[ranks[1] - 1])


def passes(share: Share, q: float) -> str:
    return "PASS" if share.high < 1 - q else "FAIL" if share.low > 1 - q else "none"


def table(cell: Cell, windows: list[Window], q: float, seconds: float) -> bool:
    """Prints one line; true where the cell is steady and misses what is promised."""
    whole = np.concatenate([window.ttft for window in windows])
    truth = float(np.sort(whole)[int(q * len(whole))])
    samples = [window.first(seconds) for window in windows]
    figures = [quantiles.quantile(sample, q) for sample in samples]
    printed = [figure for figure in figures if not isnan(figure.low) and not figure.drifting]
    covered = np.mean([holds(figure, truth) for figure in printed]) if printed else inf
    before = np.mean([independent(sample, q, truth) for sample in samples])
    worth = np.median([figure.effective / figure.n for figure in figures])
    verdicts = {}
    for beside in BESIDE:
        shares = [quantiles.share(s.beyond(beside * truth, inclusive=True), s.sizes, s) for s in samples]
        verdicts[beside] = [passes(share, q) for share in shares]
    wrong = {beside: "PASS" if beside < 1 else "FAIL" for beside in BESIDE}
    false = {beside: np.mean([verdict == wrong[beside] for verdict in verdicts[beside]]) for beside in BESIDE}
    right = {beside: np.mean([verdict not in ("none", wrong[beside]) for verdict in verdicts[beside]])
             for beside in BESIDE}  # fmt: skip
    print(
        f"{cell.endpoint:12}{cell.use:4.0%} {cell.arrivals:8}{seconds:4} s  p{q * 100:<4g}"
        f"{len(printed) / len(windows):7.0%}{covered if printed else float('nan'):9.0%}{before:13.0%}{worth:8.0%}   "
        + "  ".join(f"{right[beside]:4.0%} ({false[beside]:.0%})" for beside in BESIDE),
        flush=True,
    )
    noise = 2 * sqrt(FALSE * (1 - FALSE) / len(windows))
    enough = len(printed) >= len(windows) / 2
    return bool(cell.use <= STEADY and (max(false.values()) > FALSE + noise or (enough and covered < COVERED - noise)))


def main() -> bool:
    """True where a cell up to STEADY misses what docs/metrics.md promises."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--endpoint", choices=ENDPOINTS, action="append")
    parser.add_argument("--use", type=float, action="append")
    parser.add_argument("--arrivals", choices=("poisson", "own"), action="append")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    cells = [
        Cell(*each)
        for each in product(options.endpoint or ENDPOINTS, options.use or USES, options.arrivals or ["poisson"])
    ]
    print(
        f"{options.seeds} seeds a cell from {FIRST_SEED}; gates: right verdicts (false ones) at "
        f"{', '.join(f'{beside:g}' for beside in BESIDE)} of the truth\n"
        f"{'endpoint':12}{'use':>4} {'arrivals':8}{'window':>6}  {'TTFT':<5}{'printed':>7}{'hold':>9}"
        f"{'independent':>13}{'worth':>8}   gates"
    )
    missed = False
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for cell in cells:
            seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
            windows = list(pool.map(partial(run, cell), seeds, chunksize=5))
            for seconds, q in product(WINDOWS_S, (0.5, 0.99)):
                missed |= table(cell, windows, q, seconds)
    return missed


if __name__ == "__main__":
    sys.exit(main())
