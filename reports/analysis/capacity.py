"""What the steps of a capacity search say: how much load an endpoint takes before a gate fails, as an interval. Pure.

Theory of operation. Each gate allows a share of requests beyond it: "ttft p99 < 800ms" 1 % at 800 ms or later, "errors
< 2%" 2 % failed. The share that an endpoint would give in the long run rises with the load, and its capacity is the
load at which it reaches what is allowed. A step's share is known with an error only, and near saturation the windows
differ far more than the requests inside one of them suggest (docs/metrics.md), so that a calm window passes beyond the
capacity. Therefore:

- Steps at neighbouring loads are pooled. As the share rises with the load, the mean over a group of steps from load a
  to load b is no less than the share at a and no more than the share at b. So a group whose upper bound is below what
  is allowed shows that the capacity is above a, and one whose lower bound is above it that the capacity is below b
  (the bounds of isotonic regression's max-min formula).
- A share's bounds are one-sided 95 % ones, of the scatter between batches of time and, of three steps and more,
  between steps: the wider of the two.
- The lower end needs CONFIRMED steps in its group, each on requests of its own, and lies GUARD below the load that they
  show: so far beyond the capacity three calm windows may come together.

The interval is from the highest lower end to the lowest upper one; with several gates, the lowest of each. How often it
holds the capacity is measured by `bench capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, nan

import numpy as np

from traces.errors import InputError

from . import isotonic, quantiles
from .gate_grammar import LATENCIES, Gate
from .gates import Decision
from .quantiles import Share
from .samples import Sample

CONFIRMED = 3  # steps that a lower end needs
GUARD = 1.05  # by which it lies below the load that they were at


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
class Tried:
    """One step of a search. `level`: its load, in requests a second or in flight; `seconds`: its window, of `took`
    altogether; `confirms`: it was there to confirm; `tallies`: one a gate, none where the run decides nothing, for the
    reason `lost`. `folder`: its run, relative to the search's."""

    level: float
    seconds: float
    took: float
    tallies: tuple[Tally, ...]
    confirms: bool = False
    lost: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """All steps at one level: the share of the gate that is nearest to failing there, with its bounds, in multiples of
    what that gate allows. `more_s`: further seconds there that should decide it."""

    level: float
    share: float
    low: float
    high: float
    decision: Decision
    more_s: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the capacity lies: `low` 0 where no level was shown to hold, `high` inf where none was shown to fail.
    `gate`: the number of the gate that fails first."""

    low: float
    high: float
    gate: int = 0

    @property
    def contradictory(self) -> bool:
        return self.low >= self.high


def check(gates: Sequence[Gate], target: str) -> None:
    """Raises InputError for a gate that no share decides, or that asks for more load."""
    for gate in gates:
        if gate.target not in ("", target) or gate.step:
            raise InputError("there is one target and one load", where=gate.text, remedy=f"leave {gate.target}@ out")
        worse = ">" if gate.metric == "goodput" else "<"
        decided = gate.q is not None and gate.metric != "itl" if gate.metric in LATENCIES else gate.unit == "%"
        if not decided or not gate.op.startswith(worse):
            remedy = 'a percentile ("ttft p99 < 800ms", "longest_stall p99 < 1s"), "errors < 1%", or "goodput > 95%"'
            raise InputError("no share of requests decides it, so no step could", where=gate.text, remedy=remedy)


def allowed(gate: Gate) -> float:
    """The share of requests that may be beyond the gate."""
    return gate.limit if gate.metric == "errors" else 1 - (gate.q or gate.limit)


def tally(gate: Gate, sample: Sample) -> Tally:
    """The gate's requests in a step. Raises InputError where a gate on goodput has no objectives."""
    e2e = sample.ordered["e2e"]
    ordered = sample.ordered[gate.metric] if gate.metric in LATENCIES else e2e
    sizes = sample.sizes
    if gate.metric in LATENCIES:
        sizes, beyond = ordered.sizes, ordered.beyond(gate.limit, inclusive=gate.op == "<")
    elif gate.metric == "errors":
        beyond = e2e.failed
    else:
        if sample.good_in is None:
            raise InputError("a goodput gate needs objectives", where=gate.text, remedy="add --goodput ttft:800")
        beyond = sizes - sample.good_in
    return Tally(tuple(sizes.tolist()), tuple(np.asarray(beyond).tolist()), quantiles.worth(ordered))


def share(tallies: Sequence[Tally]) -> Share:
    """The share of the steps' requests together, with bounds by the scatter between batches, or between steps where
    that is wider."""
    sizes, beyond = (np.array([getattr(tally, name) for tally in tallies]) for name in ("sizes", "beyond"))
    worth = sum(tally.worth for tally in tallies)
    pooled = quantiles.share(beyond.ravel(), sizes.ravel(), at_most=worth)
    if len(tallies) < CONFIRMED or not pooled.n:
        return pooled
    between = quantiles.share(beyond.sum(axis=1), sizes.sum(axis=1))
    low, high = min(pooled.low, between.low), max(pooled.high, between.high)
    return Share(pooled.value, low, high, pooled.n, min(pooled.effective, between.effective))


def interval(gates: Sequence[Gate], steps: Sequence[Tried]) -> Interval:
    """Where the capacity lies, by all steps that decide anything."""
    ends = [_ends(number, allowed(gate), steps) for number, gate in enumerate(gates)]
    lows, highs = zip(*ends, strict=True)
    return Interval(min(lows), min(highs), int(np.argmin(highs if min(highs) < inf else lows)))


def _ends(gate: int, limit: float, steps: Sequence[Tried]) -> tuple[float, float]:
    levels = by_level(steps)
    low, high = 0.0, inf
    for first in range(len(levels)):
        group: list[Tally] = []
        for level, there in levels[first:]:
            group += [step.tallies[gate] for step in there]
            bounds = share(group)
            if bounds.high < limit and len(group) >= CONFIRMED:
                low = levels[first][0] / GUARD
            if bounds.low > limit:
                high = min(high, level)
    return low, high


def by_level(steps: Sequence[Tried]) -> list[tuple[float, list[Tried]]]:
    """Levels, ascending, with the steps there that decide anything."""
    good = sorted((step for step in steps if step.tallies), key=lambda step: step.level)
    return [(level, list(there)) for level, there in groupby(good, key=lambda step: step.level)]


def points(gates: Sequence[Gate], steps: Sequence[Tried]) -> list[Point]:
    """The curve's points, ascending."""
    return [point(gates, level, there) for level, there in by_level(steps)]


def point(gates: Sequence[Gate], level: float, there: Sequence[Tried]) -> Point:
    """All steps at one level together: one gate fails it, all must hold."""
    shares = [share([step.tallies[number] for step in there]) for number in range(len(gates))]
    limits = [allowed(gate) for gate in gates]
    both = list(zip(shares, limits, strict=True))
    fails = any(each.low > limit for each, limit in both)
    open_ = [(each, limit) for each, limit in both if each.high >= limit]
    decision = Decision.FAIL if fails else Decision.NO_VERDICT if open_ else Decision.PASS
    seconds = sum(step.seconds for step in there)
    more_s = 0.0 if fails else max((each.more_s(limit, seconds) for each, limit in open_), default=0.0)
    nearest, limit = max(both, key=lambda pair: pair[0].value / pair[1])
    return Point(level, nearest.value / limit, nearest.low / limit, nearest.high / limit, decision, more_s)


def estimate(gates: Sequence[Gate], steps: Sequence[Tried]) -> float | None:
    """Where the fitted curve reaches what the gates allow; None where it stays on one side."""
    curve = points(gates, steps)
    fitted = isotonic.fit([each.share for each in curve], [len(there) for _, there in by_level(steps)])
    return isotonic.crossing([each.level for each in curve], fitted, 1.0)
