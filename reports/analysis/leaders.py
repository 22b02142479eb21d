"""Who leads in which phase at which load, and where a lead is lost. Pure.

A target is beaten where another answers the same requests clearly faster (`reports.analysis.comparison`). The fastest
of those that nobody beats leads; others lead with it where neither the paired interval nor the medians' own tell them
apart, and where they too are ahead of the one named as behind. A target whose failures leave its median or its interval
unbounded can't lead: it is named as failed; an overloaded one isn't ranked, because its figures depend on the run's
length. Targets that can't be compared with the others stand aside, as few of them as possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp, inf, isfinite, log

from .. import number_format
from ..store.durations import HEADLINES
from .comparison import LEAST, Comparison, Interval
from .quantiles import Quantile
from .summary import Summary


@dataclass(frozen=True, slots=True)
class Lead:
    """The fastest of one step in one metric: `leaders` are level, and each `factor` times or more faster than `behind`
    (0 where that one failed too often to say). `p50` in seconds. `why` there are no leaders, or those in `aside` take
    no part (too few pairs, not comparable); `failed` are those with too many failures for a median; the `overloaded`
    are not ranked."""

    step: str
    leaders: tuple[str, ...]
    p50: float | None = None
    behind: str = ""
    factor: float = 0.0
    why: str = ""
    aside: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    overloaded: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        return listed(self.leaders)

    @property
    def ahead(self) -> str:
        """How far ahead of whom, by the ratio of pairs: it isn't that of the medians. Empty where nobody is behind."""
        if not self.behind:
            return ""
        factor = number_format.factor(self.factor)
        return f"{factor} ahead of {self.behind}" if self.factor else f"{self.behind} mostly failed"

    @property
    def without(self) -> str:
        """Who takes no part, and why."""
        failed = f"failed: {', '.join(self.failed)}" if self.failed else ""
        overloaded = f"overloaded: {', '.join(self.overloaded)}" if self.overloaded else ""
        aside = f"without {', '.join(self.aside)}: {self.why}" if self.aside else ""
        return "; ".join(part for part in (failed, overloaded, aside) if part)

    def __str__(self) -> str:
        without = f" ({self.without})" if self.without else ""
        if not self.leaders:
            return f"{self.why}{without}"
        names = self.names if self.behind or len(self.leaders) == 1 else "no clear difference,"
        return f"{names} {number_format.ms(self.p50, unit=True)}{', ' if self.behind else ''}{self.ahead}{without}"


def listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else ", ".join(names)


@dataclass(frozen=True, slots=True)
class Flip:
    """From one load step to the next, `step`, the lead goes from `losers` to `winners`."""

    step: str
    losers: tuple[str, ...]
    winners: tuple[str, ...]


def leads(summary: Summary, metric: str) -> list[Lead]:
    """One for each step in which there are two targets or more."""
    medians = {s: {result.target: result.quantile(metric, 0.5) for result in summary.of_step(s)} for s in summary.steps}
    return [
        lead(step, metric, of_step, [pair for pair in summary.comparison if pair.step == step])
        for step, of_step in medians.items()
        if len(of_step) > 1
    ]


def matrix(summary: Summary) -> list[tuple[str, list[Lead]]]:
    """A row for each metric ("prefill TTFT") with a lead for each step; empty for a single target."""
    rows = ((f"{phase} {metric.upper()}", leads(summary, metric)) for metric, phase in HEADLINES.items())
    return [row for row in rows if row[1]]


def lead(step: str, metric: str, medians: Mapping[str, Quantile], pairs: Sequence[Comparison]) -> Lead:
    """`medians`: target -> its p50; `pairs`: the comparisons of that step."""
    failed = tuple(name for name, median in medians.items() if median.unbounded or median.high == inf)
    overloaded = tuple(name for name in medians if name not in failed and any(name in p.overloaded for p in pairs))
    pairs = _among(set(medians) - {*failed, *overloaded}, pairs)
    faults = {(pair.base, pair.other): fault for pair in pairs if (fault := _fault(pair, metric))}
    aside = _aside(faults)
    why = next((fault for both, fault in faults.items() if set(both) & set(aside)), "")
    left = {name: m.value for name, m in medians.items() if name not in (*failed, *overloaded, *aside)}
    values = {name: value for name, value in left.items() if isfinite(value)}
    order = sorted(values, key=lambda name: values[name])
    if not order or len(order) + len(failed) + len(overloaded) < 2:
        return Lead(step, (), why=why if aside else "no leader", failed=failed, overloaded=overloaded)
    slower = _slower(_among(set(order), pairs), metric)
    beats = {both: ratio.value or 0.0 for both, ratio in slower.items() if ratio.faster > 0}
    beaten = {loser for _, loser in beats}
    first = next((name for name in order if name not in beaten), order[0])
    behind = next((name for name in order if (first, name) in beats), "")
    leaders = [first]
    for name in order:
        ahead = not behind or ((name, behind) in beats and values[name] <= values[behind])
        if ahead and name not in (first, *beaten) and _level(medians[first], medians[name], slower[first, name].high):
            leaders.append(name)
    factor = min(beats[leader, behind] for leader in leaders) if behind else 0.0
    return Lead(step, tuple(leaders), values[first], behind, factor, why, aside, failed, overloaded)


def _among(names: set[str], pairs: Sequence[Comparison]) -> list[Comparison]:
    return [pair for pair in pairs if {pair.base, pair.other} <= names]


def _slower(pairs: Sequence[Comparison], metric: str) -> dict[tuple[str, str], Interval]:
    """How many times slower the second is than the first, for each pair both ways."""
    slower: dict[tuple[str, str], Interval] = {}
    for pair in pairs:
        ratio = pair.metrics[metric]
        assert ratio is not None  # pairs without one stand aside
        slower |= {(pair.base, pair.other): ratio.median, (pair.other, pair.base): ratio.median.inverse}
    return slower


def _level(first: Quantile, other: Quantile, most: float | None) -> bool:
    """Nothing tells the two medians apart: their intervals overlap, or the other is no slower than the paired interval
    lets it be (`most` times, None without bound), or than LEAST."""
    overlap = first.enough and other.enough and other.low <= first.high
    return overlap or most is None or other.value <= max(LEAST, most) * first.value


def _fault(pair: Comparison, metric: str) -> str:
    """Why the two can't be compared; "" where they can."""
    if metric == "e2e" and pair.pairs and not pair.lengths.comparable:
        return "not comparable: the targets gave answers of different length"
    return "too few pairs" if pair.metrics[metric] is None else ""


def _aside(faults: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Targets to leave out until no faulty pair is left: each time the one that is in most of them."""
    left, names = list(faults), []
    while left:
        names.append(Counter(name for both in left for name in both).most_common(1)[0][0])
        left = [both for both in left if names[-1] not in both]
    return tuple(sorted(names))


def flips(leads: Iterable[Lead]) -> list[Flip]:
    """In the order of load steps: where neighbouring ones, of those with leaders, have none in common. Whoever was
    overloaded meanwhile isn't ranked any more, and lost no comparison."""
    every = []
    for before, after in pairwise(lead for lead in leads if lead.leaders):
        losers = tuple(name for name in before.leaders if name not in after.overloaded)
        if losers and not set(losers) & set(after.leaders):
            every.append(Flip(after.step, losers, after.leaders))
    return every


def flips_of_pairs(comparisons: Sequence[Comparison], metric: str) -> list[Flip]:
    """Where a pair's clear winner changes from one load step to the next clear one, pair by pair."""
    every: list[Flip] = []
    for both in dict.fromkeys((pair.base, pair.other) for pair in comparisons):
        ratios = [(pair.step, pair.metrics[metric]) for pair in comparisons if (pair.base, pair.other) == both]
        every += flips(Lead(step, (ratio.winner,)) for step, ratio in ratios if ratio and ratio.winner)
    return every


def crossovers(summary: Summary, metric: str) -> Iterator[tuple[str, str, float]]:
    """(leader, follower, in flight): where one target's p50 against its own concurrency crosses another's. Between the
    two buckets around the crossing, on the logarithms of both axes; only where both buckets' intervals are clear of
    each other on their side."""
    curves = _curves(summary, metric)
    for (first, a), (second, b) in combinations(curves.items(), 2):
        clear = [low for low in sorted(set(a) & set(b)) if a[low].high < b[low].low or b[low].high < a[low].low]
        for left, right in pairwise(clear):
            gap = [log(a[low].value / b[low].value) for low in (left, right)]
            if gap[0] * gap[1] < 0:
                share = gap[0] / (gap[0] - gap[1])
                where = exp(log(left) + share * (log(right) - log(left)))
                yield (first, second, where) if gap[0] < 0 else (second, first, where)


def _curves(summary: Summary, metric: str) -> dict[str, dict[int, Quantile]]:
    """target -> lower edge of the in-flight bucket -> p50, of the step with most requests in that bucket."""
    curves: dict[str, dict[int, Quantile]] = {}
    for result in summary.results:
        curve = curves.setdefault(result.target, {})
        for part in result.slices["in_flight"]:
            median = part.p50(metric)
            most = curve[part.low].n if part.low in curve else 0
            if median.enough and isfinite(median.value) and median.value and median.n > most:
                curve[part.low] = median
    return curves
