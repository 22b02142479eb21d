"""How often is a verdict right? Endpoints of known truth in virtual time: coverage of intervals, false verdicts, A/A.

Each cell is an endpoint at a share of its capacity under Poisson arrivals or the workload's own bursts; azure-conv
lengths, warm-up 120 s, fixed seeds. The truth is the quantile of all seeds' requests together. `--seeds N` (200),
`--quick` (60 seeds, three cells). Figures of the whole table stand in docs/metrics.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt

import numpy as np
import numpy.typing as npt

from reports.analysis import intervals
from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.synthesis.workload import synthesise
from traces.trace import NS_PER_S
from traces.transforms import cap_context, clip, pace

Values = npt.NDArray[np.float64]

WARMUP_S, LONG_S, SHORT_S = 120, 600, 120
MODEL, CONTEXT = "llama2-7b", 4096
FIRST_SEED = 1000
QUANTILES = (0.5, 0.99)
# name: profile, settings, requests/s of azure-conv that it carries at most (`targets.simulated.sizing.capacity`)
ENDPOINTS: dict[str, tuple[str, dict[str, str], float]] = {
    "a100": ("a100", {}, 3.71),
    "h100": ("h100", {}, 10.23),
    "groqrack x7": ("groqrack", {"pool": "7"}, 6.51),
    "hybrid 1:6": ("disaggregated", {"pool": "1:6"}, 6.52),
}
USES = (0.3, 0.6, 0.8, 0.9)
ARRIVALS = ("poisson", "own")


@dataclass(frozen=True)
class Cell:
    """One endpoint at one load."""

    endpoint: str
    use: float
    arrivals: str

    def __str__(self) -> str:
        return f"{self.endpoint:12} {self.use:4.0%} {self.arrivals:8}"


@dataclass(frozen=True)
class Window:
    """What one run counted: due instants (ns) and TTFT (s; a failure is inf)."""

    due: npt.NDArray[np.int64]
    ttft: Values

    def first(self, seconds: float) -> Window:
        kept = self.due < (WARMUP_S + seconds) * NS_PER_S
        return Window(self.due[kept], self.ttft[kept])


def ends(seconds: float) -> tuple[float, float]:
    return WARMUP_S * NS_PER_S, (WARMUP_S + seconds) * NS_PER_S


def window(cell: Cell, seed: int, length_s: float = LONG_S) -> Window:
    """One run of the cell."""
    profile, settings, most = ENDPOINTS[cell.endpoint]
    rate, whole = most * cell.use, WARMUP_S + length_s
    trace = cap_context(synthesise("azure-conv", rate=rate, duration=whole, seed=seed), CONTEXT)
    if cell.arrivals == "poisson":
        trace = clip(pace(trace, rate, seed=seed), 0, whole)
    endpoint = build(profile, model=MODEL, settings=settings)
    rows = sorted(
        (due, exchange.ttft if exchange.ok and exchange.ttft is not None else inf)
        for exchange in simulate(endpoint, trace)
        if (due := exchange.call.due) >= WARMUP_S * NS_PER_S
    )
    return Window(np.array([due for due, _ in rows], np.int64), np.array([ttft for _, ttft in rows]))


def quantile(values: Values, q: float) -> float:
    return float(np.quantile(values, q)) if np.isfinite(values).all() else inf


def coverage(windows: list[Window], seconds: float) -> Iterator[str]:
    """Shares of seeds whose interval holds the truth; of p99 also the share that is unbounded."""
    pooled = np.concatenate([each.ttft for each in windows])
    for q in QUANTILES:
        truth = quantile(pooled, q)
        found = [intervals.of_window(w.due, w.ttft, q, ends(seconds)) for w in (w.first(seconds) for w in windows)]
        covered = np.mean([each.low <= truth <= each.high for each in found])
        unbounded = np.mean([not each.bounded for each in found])
        effective = np.median([each.effective for each in found]) / np.median([each.n for each in found])
        yield f"{covered:6.0%} ({unbounded:4.0%} open, n_eff {effective:4.0%})"


def rounds(windows: list[Window], seconds: float) -> Iterator[str]:
    """Shares of sets of five rounds whose t-interval holds the truth."""
    pooled = np.concatenate([each.ttft for each in windows])
    random = np.random.default_rng(1)
    sets = [random.choice(len(windows), intervals.ROUNDS, replace=False) for _ in range(400)]
    for q in QUANTILES:
        truth = quantile(pooled, q)
        figures = [quantile(each.first(seconds).ttft, q) for each in windows]
        bounds = [intervals.over_rounds([figures[i] for i in chosen]) for chosen in sets]
        yield f"{np.mean([low <= truth <= high for _, low, high in bounds]):6.0%}"


def verdicts(windows: list[Window], seconds: float, q: float) -> Iterator[float]:
    """Shares of false PASS at 0.9 of the truth, of false FAIL at 1.1; of FAIL at 0.7, of PASS at 1.4."""
    truth = quantile(np.concatenate([each.ttft for each in windows]), q)
    for factor, passes in ((0.9, True), (1.1, False), (0.7, False), (1.4, True)):
        hits = 0
        for each in (w.first(seconds) for w in windows):
            share = intervals.of_share(each.due, each.ttft > factor * truth, ends(seconds), each.ttft)
            hits += share.high < 1 - q if passes else share.low > 1 - q
        yield hits / len(windows)


def same(windows: list[Window], seconds: float) -> Iterator[float]:
    """A/A: the share of bake-offs of five rounds between an endpoint and itself that name a winner, by quantile."""
    random = np.random.default_rng(2)
    for q in QUANTILES:
        figures = np.array([quantile(each.first(seconds).ttft, q) for each in windows])
        won = 0
        for _ in range(400):
            chosen = random.choice(len(windows), 2 * intervals.ROUNDS, replace=False)
            ratios = figures[chosen[: intervals.ROUNDS]] / figures[chosen[intervals.ROUNDS :]]
            _, low, high = intervals.over_rounds(list(ratios))
            won += not low <= 1 <= high
        yield won / 400


def main() -> bool:
    """True where the steady cells miss what docs/metrics.md promises."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    seeds = 60 if options.quick else options.seeds
    cells = [Cell(name, use, arrivals) for arrivals in ARRIVALS for name in ENDPOINTS for use in USES]
    if options.quick:
        cells = [Cell("h100", 0.3, "poisson"), Cell("h100", 0.6, "poisson"), Cell("groqrack x7", 0.6, "poisson")]
    missed = False
    print(f"{seeds} seeds a cell from {FIRST_SEED}; coverage of nominal 95 % intervals of TTFT, p50 then p99")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for cell in cells:
            numbers = range(FIRST_SEED, FIRST_SEED + seeds)
            windows = list(pool.map(partial(window, cell), numbers, chunksize=5))
            missed |= report(cell, windows)
    return missed


def report(cell: Cell, windows: list[Window]) -> bool:
    """Prints the cell's lines; true where it is steady and a false verdict is too frequent."""
    margin = 2 * sqrt(0.05 * 0.95 / len(windows))
    missed = False
    for seconds in (SHORT_S, LONG_S):
        in_window, by_rounds = " ".join(coverage(windows, seconds)), " ".join(rounds(windows, seconds))
        print(f"{cell} {seconds:4} s  one window {in_window}   five rounds {by_rounds}")
        for q in QUANTILES:
            false_pass, false_fail, fail, passed = verdicts(windows, seconds, q)
            print(
                f"{'':34}p{q * 100:g} gates: false PASS {false_pass:5.1%}, false FAIL {false_fail:5.1%}; "
                f"FAIL at 0.7 {fail:4.0%}, PASS at 1.4 {passed:4.0%}"
            )
            missed |= cell.use <= 0.6 and max(false_pass, false_fail) > 0.05 + margin
        print(f"{'':34}A/A, five rounds: a winner in {', '.join(f'{share:.1%}' for share in same(windows, seconds))}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
