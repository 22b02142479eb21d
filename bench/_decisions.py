"""Endpoints of known truth in virtual time: the runs, rounds and bake-offs that `bench.decisions` judges.

A cell is an endpoint at a share of its capacity, under Poisson arrivals or the workload's own bursts: azure-conv
lengths, a warm-up of 120 s. Its truth is the quantile of all seeds' requests together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import pandas as pd

from reports.analysis import quantiles, steadiness
from reports.analysis.quantiles import BATCHES, Ordered, Values
from reports.analysis.steadiness import MARGIN, Headroom, Steadiness
from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.request import NS_PER_S
from traces.transforms import cap_context, clip, pace
from traces.workload import synthesise

WARMUP_S, WINDOWS_S = 120, (120, 600)
MODEL, CONTEXT, FIRST_SEED, ROUNDS = "llama2-7b", 4096, 1000, 5
# name: profile, settings, requests/s of azure-conv that it carries at most
ENDPOINTS: Mapping[str, tuple[str, dict[str, str], float]] = {
    "h100": ("h100", {}, 10.23),
    "groqrack x7": ("groqrack", {"pool": "7"}, 6.51),
    "a100": ("a100", {}, 3.71),
    "hybrid 1:6": ("disaggregated", {"pool": "1:6"}, 6.52),
}
USES = (0.3, 0.6, 0.8, 0.9)


@dataclass(frozen=True)
class Cell:
    """One endpoint at one load."""

    endpoint: str
    use: float
    arrivals: str


@dataclass(frozen=True)
class Recorded:
    """What one run counted in its longest window: due instants (ns) and TTFT (s; a failure is inf); `states`: seconds
    of a window -> was the endpoint steady in it?"""

    due: Values
    ttft: Values
    states: Mapping[int, Steadiness]

    def first(self, seconds: float) -> Ordered:
        """Its first so many seconds."""
        kept = self.due < (WARMUP_S + seconds) * NS_PER_S
        return window(self.due[kept] - WARMUP_S * NS_PER_S, self.ttft[kept], seconds)


def window(due: Values, ttft: Values, seconds: float) -> Ordered:
    """`due`: ns from the window's start."""
    batch = quantiles.batch_of(due, (0, seconds * NS_PER_S))
    return Ordered.of(ttft, batch, np.bincount(batch[np.isinf(ttft)], minlength=BATCHES), seconds)


def record(cell: Cell, seed: int, times: float = 1.0) -> Recorded:
    """One run of the cell at so many times its load."""
    profile, settings, most = ENDPOINTS[cell.endpoint]
    rate, whole = most * cell.use * times, WARMUP_S + WINDOWS_S[-1]
    trace = cap_context(synthesise("azure-conv", rate=rate, duration=whole, seed=seed), CONTEXT)
    if cell.arrivals == "poisson":
        trace = clip(pace(trace, rate, seed=seed), 0, whole)
    exchanges = simulate(build(profile, model=MODEL, settings=settings), trace)
    rows = pd.DataFrame(
        [(e.call.due, e.sent, e.done, e.ok, e.ttft, e.tpot, e.call.request.output_tokens) for e in exchanges],
        columns=["due", "sent", "done", "ok", "ttft", "tpot", "output_tokens"],
    ).astype({"due": np.float64, "sent": np.float64, "done": np.float64, "ttft": np.float64, "tpot": np.float64})
    rows = rows.sort_values("due", kind="stable", ignore_index=True)
    rows["counted"] = rows["due"] >= WARMUP_S * NS_PER_S
    states = {}
    for seconds in WINDOWS_S:
        ends = (WARMUP_S * NS_PER_S, (WARMUP_S + seconds) * NS_PER_S)
        states[seconds] = steadiness.of_window(rows[rows["due"] < ends[1]], ends)
    counted = rows[rows["counted"]]
    ttft = counted["ttft"].where(counted["ok"]).fillna(inf)
    return Recorded(counted["due"].to_numpy(), ttft.to_numpy(), states)


@dataclass(frozen=True)
class Step:
    """The rounds of one load step, as `steadiness.headroom` asks for them."""

    target: str
    factor: float
    n: int
    window_s: float
    steadiness: Steadiness


@dataclass(frozen=True)
class Bakeoff:
    """Some rounds of a cell, beside as many at MARGIN times the load."""

    rounds: Sequence[Ordered]
    states: Sequence[Steadiness]
    steeper: Sequence[Steadiness]

    @cached_property
    def pooled(self) -> Ordered:
        return Ordered.pooled(self.rounds)

    @property
    def overloaded(self) -> bool:
        return steadiness.over_rounds(self.states).overloaded

    @cached_property
    def headroom(self) -> Headroom:
        seconds = self.pooled.seconds
        step, steeper = (
            Step("", factor, round(factor * self.pooled.n), seconds, steadiness.over_rounds(states))
            for factor, states in ((1.0, self.states), (MARGIN, self.steeper))
        )
        return steadiness.headroom(step, [step, steeper])


def bakeoffs(
    runs: Sequence[Recorded], steeper: Sequence[Recorded], seconds: int, rounds: int = ROUNDS
) -> Iterator[Bakeoff]:
    """As many as there are runs, each of other rounds drawn from them."""
    rng, windows = np.random.default_rng(FIRST_SEED), [run.first(seconds) for run in runs]
    for _ in runs:
        drawn = rng.choice(len(runs), rounds, replace=False)
        beside = rng.choice(len(steeper), min(rounds, len(steeper)), replace=False)
        yield Bakeoff(
            [windows[i] for i in drawn], [runs[i].states[seconds] for i in drawn],
            [steeper[i].states[seconds] for i in beside],
        )  # fmt: skip


def longer(runs: Sequence[Recorded], first: int, seconds: float) -> Ordered:
    """A window of so many seconds that begins with one run's; those after it follow."""
    order = [(first + i) % len(runs) for i in range(int(seconds // WINDOWS_S[-1]) + 1)]
    due = np.concatenate([
        runs[i].due - (WARMUP_S - place * WINDOWS_S[-1]) * NS_PER_S for place, i in enumerate(order)
    ])  # fmt: skip
    ttft = np.concatenate([runs[i].ttft for i in order])
    kept = due < seconds * NS_PER_S
    return window(due[kept], ttft[kept], seconds)
