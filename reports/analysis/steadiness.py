"""Was an endpoint steady under its load, and has it headroom? Percentiles of one that isn't say how long the run was,
not how fast the endpoint is. Pure.

Theory of operation. The window is cut into BATCHES parts of equal length. In each: the mean backlog (requests that were
due and are not over), the medians of TTFT and TPOT, and of the time that a token takes from the request's due instant
to its end. A level rises (or falls) where its rank correlation with time is beyond what chance gives, and its last
three batches are far enough from its first three: chance alone moves levels that share a queue.

Little's law holds over any steady window: mean in flight = arrivals per second * mean time in system. While a backlog
grows, those who arrive last have most of their wait still before them when the window ends, so that rate * time exceeds
what was in flight; with first come, first served, by as much as the load exceeds the capacity.

*Overloaded*: the backlog rises, rate * time exceeds it by LITTLE or more (or requests were never over), and so does the
time per token or TTFT: a trace whose rate rises gives the first without the last, and one whose answers grow longer has
no longer time per token. *Drifting*: not overloaded, but TTFT, TPOT or the time per token rises or falls, or Little's
law is off by more than the window's ends explain. *Steady*: neither. Rounds have their middle state, of two the worse.

*Headroom*: nothing inside a calm window shows how near the knee is (docs/metrics.md has the table), but an endpoint
that is steady at MARGIN times the load isn't near. `bench.steadiness` measures how often each state is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, sqrt
from typing import Protocol

import numpy as np
import pandas as pd

from traces.request import NS_PER_S

from .quantiles import BATCHES, Batch, Values, batch_of

LEAST = 20  # requests in the window, below which nothing is said
FEWEST = 8  # batches with requests, below which no trend is told
RISES, DRIFTS = 0.745, 0.879  # Spearman's rank correlation of ten batches with time: one-sided 1 % and 0.1 %
GROWTH, CHANGE = 1.15, 1.2  # last three batches over the first three: of an overload's times, of a drift
LITTLE = 0.1  # rate * time over mean in flight, above 1
OPEN = 0.1  # the share of requests never over that overload shows without Little's law
MARGIN = 1.5  # times the load at which an endpoint with headroom is steady
ENDS = 2 * sqrt(2)  # two standard deviations of a difference of two Poisson counts, in sqrt(mean)
INSTANTS = 100  # at which the backlog of a batch is looked at


class State(StrEnum):
    """From good to bad."""

    STEADY = "steady"
    UNKNOWN = "too few requests to say"
    DRIFTING = "drifting"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Steadiness:
    """`why` in words, empty of a steady one; `began_s`: the second of the run from which on an overloaded endpoint's
    backlog grew; `little`: rate * mean time in system over mean in flight, 1 in a steady state (None where nothing was
    in flight)."""

    state: State
    why: str = ""
    began_s: float | None = None
    little: float | None = None

    @property
    def steady(self) -> bool:
        return self.state is State.STEADY

    @property
    def overloaded(self) -> bool:
        return self.state is State.OVERLOADED


class Loaded(Protocol):
    """What headroom asks of a sample: `n` requests in `window_s`, at `factor` times the base load."""

    @property
    def target(self) -> str: ...
    @property
    def factor(self) -> float: ...
    @property
    def n(self) -> int: ...
    @property
    def window_s(self) -> float: ...
    @property
    def steadiness(self) -> Steadiness: ...


@dataclass(frozen=True, slots=True)
class Headroom:
    """Is the load well below the endpoint's knee? `why` in words: what shows it, or what is missing. `steady_below`:
    requests/s of the largest load at which the endpoint was steady (None where it was steady at none)."""

    shown: bool
    why: str
    steady_below: float | None = None


def headroom(sample: Loaded, samples: Iterable[Loaded], capacity: float | None = None) -> Headroom:
    """Of one target in one step. `samples`: those of all steps of the run; `capacity`: requests/s that the target
    carries at most, where that was measured."""
    own = [each for each in samples if each.target == sample.target]
    rates = [_rate(each) for each in own if each.steadiness.steady]
    steady_below = max(rates, default=None)
    if not sample.steadiness.steady:
        return Headroom(False, f"{sample.steadiness.state} at this load", steady_below)
    if capacity and _rate(sample) <= capacity / MARGIN:
        return Headroom(True, f"at {_rate(sample) / capacity:.0%} of its capacity", steady_below)
    steeper = [each for each in own if each.factor >= MARGIN * sample.factor * (1 - 1e-9)]
    steeper.sort(key=lambda each: each.factor)
    for each in steeper:
        if each.steadiness.steady:
            return Headroom(True, f"steady at {each.factor / sample.factor:g} times this load", steady_below)
    if steeper:
        first = steeper[0]
        found = f"{first.steadiness.state} at {first.factor / sample.factor:g} times this load"
        return Headroom(False, f"no headroom: {found}, steady below about {steady_below:.3g} requests/s", steady_below)
    return Headroom(False, f"no headroom shown: no step at {MARGIN:g} times this load", steady_below)


def _rate(sample: Loaded) -> float:
    """Arrivals per second of the window."""
    return sample.n / sample.window_s if sample.window_s else 0.0


def over_rounds(rounds: Sequence[Steadiness]) -> Steadiness:
    """The middle one of the rounds' states; of an even number the worse of the two."""
    order = list(State)
    middle = sorted((each.state for each in rounds), key=order.index)[len(rounds) // 2]
    alike = [each for each in rounds if each.state is middle]
    first = alike[0]
    if len(rounds) > 1 and first.why:
        return replace(first, why=f"{first.why} (in {len(alike)} of {len(rounds)} rounds)")
    return first


def of_window(rows: pd.DataFrame, window: tuple[float, float]) -> Steadiness:
    """`rows` of one target in one step of one round, warm-up included; `window` in ns from the run's start."""
    counted = rows[rows["counted"]]
    if window[1] <= window[0] or len(counted) < LEAST:
        return Steadiness(State.UNKNOWN, f"{len(counted)} requests, needs {LEAST}")
    in_flight, times = _levels(rows, counted, window)
    little, chance = _little(rows, counted, window)
    unfinished = float((~np.isfinite(counted["done"])).mean())
    lagging = unfinished >= OPEN or (little is not None and little >= 1 + LITTLE)
    slower = any(_rank_correlation(times[name]) >= RISES and _growth(times[name]) >= GROWTH for name in SLOWER)
    if _rank_correlation(in_flight) >= RISES and lagging and slower:
        began_s = _began(rows, window)
        return Steadiness(State.OVERLOADED, f"its backlog grew from second {began_s:,.0f} on", began_s, little)
    for name, level in times.items():
        growth = _growth(level)
        if abs(_rank_correlation(level)) >= DRIFTS and (growth >= CHANGE or growth <= 1 / CHANGE):
            return Steadiness(State.DRIFTING, f"{name} {_moved(growth)} over the window", little=little)
    if little is not None and abs(little - 1) > LITTLE + chance:
        why = f"arrivals times their time in system were {little:.2f} times what was in flight"
        return Steadiness(State.DRIFTING, why, little=little)
    return Steadiness(State.STEADY, little=little)


def _moved(growth: float) -> str:
    if growth == inf:
        return "rose without bound"
    return f"{'rose' if growth > 1 else 'fell'} by {abs(growth - 1):.0%}"


PER_TOKEN = "time per token, from due to done,"  # noqa: S105 - no password
SLOWER = (PER_TOKEN, "TTFT")  # of which one or both rise with a backlog


def _levels(rows: pd.DataFrame, counted: pd.DataFrame, window: tuple[float, float]) -> tuple[Values, dict[str, Values]]:
    """The mean backlog of each batch; the batches' medians of each time, failures infinitely slow; nan of an empty
    batch."""
    begin, end = window
    instants = begin + (np.arange(BATCHES * INSTANTS) + 0.5) * ((end - begin) / (BATCHES * INSTANTS))
    in_flight = backlog(rows, np.asarray(instants, np.float64)).reshape(BATCHES, INSTANTS).mean(axis=1)
    took: pd.Series[float] = (counted["done"] - counted["due"]) / np.maximum(counted["output_tokens"], 1)
    ok, batch = counted["ok"].to_numpy(), batch_of(counted["due"].to_numpy(), window)
    times = {PER_TOKEN: took, "TTFT": counted["ttft"], "TPOT": counted["tpot"]}
    medians = {name: _medians(np.where(ok, values, inf), batch) for name, values in times.items()}
    return in_flight, medians


def _medians(values: Values, batch: Batch) -> Values:
    """By rank, because failures are inf and a mean of two infinities is none."""
    parts = [np.sort(values[(batch == i) & ~np.isnan(values)]) for i in range(BATCHES)]
    return np.array([part[len(part) // 2] if len(part) else np.nan for part in parts])


def _rank_correlation(levels: Values) -> float:
    """Spearman's, with the batches' order; empty batches are left out."""
    kept = levels[~np.isnan(levels)]
    ranks = (kept[:, None] > kept).sum(1) + (kept[:, None] == kept).sum(1) / 2
    if len(kept) < FEWEST or not ranks.std():
        return 0.0
    return float(np.corrcoef(np.arange(len(kept)), ranks)[0, 1])


def _growth(levels: Values) -> float:
    """The last three batches over the first three; 1 where that is undefined."""
    kept = levels[~np.isnan(levels)]
    if not len(kept):
        return 1.0
    first, last = (float(part.mean()) for part in (kept[:3], kept[-3:]))
    return last / first if 0 < first < inf else 1.0


def _little(rows: pd.DataFrame, counted: pd.DataFrame, window: tuple[float, float]) -> tuple[float | None, float]:
    """Rate * mean time in system over the mean in flight, of requests that were ever over; and how far from 1 chance
    moves it, because as many more or fewer are in flight at the window's end than at its begin."""
    begin, end = window
    due, done = (rows.loc[np.isfinite(rows["done"]), name].to_numpy() for name in ("due", "done"))
    in_flight = float(np.sum(np.clip(done, begin, end) - np.clip(due, begin, end)))
    times = (counted["done"] - counted["due"])[np.isfinite(counted["done"])]
    if in_flight <= 0 or not len(times):  # a stepped clock can turn times around
        return None, 0.0
    return float(times.sum()) / in_flight, ENDS * float(times.mean()) / sqrt(in_flight * (end - begin))


def _began(rows: pd.DataFrame, window: tuple[float, float]) -> float:
    """The second of the run at which a line of one bend, level and then rising, fits the backlog best (least
    squares)."""
    begin = float(rows["due"].min())
    instants = np.linspace(begin, window[1], BATCHES * INSTANTS)
    levels = backlog(rows, instants)
    bends = instants[: int(0.9 * len(instants)) : BATCHES]
    misfit = []
    for bend in bends:
        rise = np.maximum(0.0, instants - bend)
        slope = np.cov(rise, levels)[0, 1] / rise.var(ddof=1)
        misfit.append(float(np.var(levels - max(0.0, slope) * rise)))
    return float(bends[int(np.argmin(misfit))] / NS_PER_S)


def backlog(rows: pd.DataFrame, instants: Values) -> Values:
    """Requests that were due at each instant (ns, sorted) and not yet over."""
    due = np.sort(rows["due"].to_numpy())
    done = rows["done"].to_numpy()
    done = np.sort(done[np.isfinite(done)])
    begun, over = (np.searchsorted(ends, instants, side="right") for ends in (due, done))
    return np.asarray(begun - over, np.float64)
