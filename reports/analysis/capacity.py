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
- The lower end needs CONFIRMED steps in its group, each on requests of its own. Both ends lie GUARD outside of the
  load that their group shows: so far beyond the capacity three calm windows may come together, and so far below it a
  burst may fail a short one.

The interval is from the highest lower end to the lowest upper one; with several gates, the lowest of each. How often it
holds the capacity is measured by `bench capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, inf, isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from traces.errors import InputError
from traces.typed_json import to_plain

from ..store.capacity_json import UNITS, CapacityFacts, CapacityStep, SearchTerms, Tally
from . import isotonic
from .gate_grammar import LATENCIES, Gate, parse
from .gates import Decision
from .quantiles import BEYOND, ONE_SIDED, Ordered, effective_sample, finite, standard_error
from .shares import Share, wilson
from .student import t

if TYPE_CHECKING:
    from .samples import Sample

HALVINGS = 5  # of the lowest level, where that fails already
WARMUP = 1 / 3  # of a step's window, that come before it
CONFIRMED = 3  # steps that a lower end needs
GUARD = 1.05  # by which the ends lie outside of what was shown


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
    `gate`: the number of the gate that ends it."""

    low: float
    high: float
    gate: int = 0


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """What a search found. The capacity lies from `low` (None: no level was shown to hold) to `high` (None: none was
    shown to fail), in `unit`; `estimate`: where the fitted curve reaches what the gates allow. `sentence` says it in
    words, `remedy` what would say more. `code`: 0 an interval, 1 no level holds, 3 no verdict."""

    sentence: str
    code: int
    low: float | None
    high: float | None
    estimate: float | None
    unit: str
    remedy: str
    curve: tuple[Point, ...]
    facts: CapacityFacts
    folder: Path

    def as_json(self) -> dict[str, object]:
        """As `phaseload capacity --json` prints it; what is unbounded is null."""
        curve = [{name: finite(value) for name, value in _floats(point)} | {"decision": str(point.decision)}
                 for point in self.curve]  # fmt: skip
        return {
            "capacity": self.sentence, "exit_code": self.code, "low": self.low, "high": self.high, "unit": self.unit,
            "estimate": self.estimate, "remedy": self.remedy, "curve": curve, "search": to_plain(self.facts),
        }  # fmt: skip


def check(gates: Sequence[Gate], target: str) -> None:
    """Raises InputError for a gate that no share decides, or that asks for more load."""
    for gate in gates:
        if gate.target not in ("", target) or gate.step:
            raise InputError("there is one target and one load", where=gate.text, remedy=f"leave {gate.target}@ out")
        if gate.where:
            raise InputError("a slice of the requests", where=gate.text, remedy="a capacity is all requests'")
        worse = ">" if gate.metric == "goodput" else "<"
        decided = gate.q is not None and gate.metric != "itl" if gate.metric in LATENCIES else gate.unit == "%"
        if not decided or not gate.op.startswith(worse):
            remedy = 'a percentile ("ttft p99 < 800ms", "longest_stall p99 < 1s"), "errors < 1%", or "goodput > 95%"'
            raise InputError("no share of requests decides it, so no step could", where=gate.text, remedy=remedy)
        if allowed(gate) <= 0:
            remedy = '"errors < 0.1%", say' if gate.metric == "errors" else '"goodput > 99.9%", say'
            raise InputError("it allows no request beyond it, which no step can show", where=gate.text, remedy=remedy)


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
    return Tally(tuple(sizes.tolist()), tuple(np.asarray(beyond).tolist()), worth(ordered))


def worth(latencies: Ordered) -> float:
    """How many independent requests these are worth, by how the slowest cluster."""
    n = latencies.n
    return min((effective_sample(standard_error(latencies.excess(q), n), q, n) for q in (0.9, 0.99)), default=0.0)


def share(tallies: Sequence[Tally]) -> Share:
    """The share of the steps' requests together. Few events tell little about how they cluster: where there are fewer
    than BEYOND, the slowest requests' clustering stands in for theirs."""
    sizes, beyond = (np.array([getattr(tally, name) for tally in tallies]) for name in ("sizes", "beyond"))
    n, happened = int(sizes.sum()), int(beyond.sum())
    if not n:
        return Share(nan, 0.0, 1.0, 0, 0.0)
    p = happened / n
    deviations = beyond - p * sizes
    parts = [deviations.ravel(), *([deviations.sum(axis=1)] if len(tallies) >= CONFIRMED else [])]
    effective = [effective_sample(standard_error(part, n), p, n) for part in parts]
    if min(happened, n - happened) < BEYOND:
        effective[0] = min(effective[0], sum(tally.worth for tally in tallies))
    zs = [t(len(part) - 1, ONE_SIDED) for part in parts]
    bounds = [wilson(p, size, z) for size, z in zip(effective, zs, strict=True)]
    lows, highs = zip(*bounds, strict=True)
    return Share(p, min(lows), max(highs), n, min(effective), zs[int(np.argmin(effective))])


def interval(gates: Sequence[Gate], steps: Sequence[CapacityStep]) -> Interval:
    """Where the capacity lies, by all steps that decide anything."""
    ends = [_ends(number, allowed(gate), steps) for number, gate in enumerate(gates)]
    lows, highs = zip(*ends, strict=True)
    return Interval(min(lows), min(highs), int(np.argmin(highs if min(highs) < inf else lows)))


def _ends(gate: int, limit: float, steps: Sequence[CapacityStep]) -> tuple[float, float]:
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
                high = min(high, level * GUARD)
    return low, high


def by_level(steps: Sequence[CapacityStep]) -> list[tuple[float, list[CapacityStep]]]:
    """Levels, ascending, with the steps there that decide anything."""
    good = sorted((step for step in steps if step.tallies), key=lambda step: step.level)
    return [(level, list(there)) for level, there in groupby(good, key=lambda step: step.level)]


def points(gates: Sequence[Gate], steps: Sequence[CapacityStep]) -> list[Point]:
    """The curve's points, ascending."""
    return [point(gates, level, there) for level, there in by_level(steps)]


def point(gates: Sequence[Gate], level: float, there: Sequence[CapacityStep]) -> Point:
    """All steps at one level together: one gate fails it, all must hold."""
    shares = [share([step.tallies[number] for step in there]) for number in range(len(gates))]
    limits = [allowed(gate) for gate in gates]
    both = list(zip(shares, limits, strict=True))
    fails = any(each.low > limit for each, limit in both)
    open_ = [(each, limit) for each, limit in both if each.high >= limit]
    decision = Decision.FAIL if fails else Decision.NO_VERDICT if open_ else Decision.PASS
    seconds = sum(step.seconds for step in there)
    more_s = 0.0 if fails else seconds * max((_more(each, limit) for each, limit in open_), default=0.0)
    nearest, limit = max(both, key=lambda pair: pair[0].value / pair[1])
    return Point(level, nearest.value / limit, nearest.low / limit, nearest.high / limit, decision, more_s)


def _more(share: Share, limit: float) -> float:
    """How much longer the step would have to be, as a multiple of what it was."""
    more = share.more(limit)
    return share.least(limit) if isnan(more) else more


def estimate(gates: Sequence[Gate], steps: Sequence[CapacityStep]) -> float | None:
    """Where the fitted curve reaches what the gates allow; None where it stays on one side."""
    curve = points(gates, steps)
    fitted = isotonic.fit([each.share for each in curve], [len(there) for _, there in by_level(steps)])
    return isotonic.crossing([each.level for each in curve], fitted, 1.0)


def result(folder: Path, facts: CapacityFacts) -> CapacityResult:
    """What the steps of the search in this folder show. Raises InputError for a gate that can't be read."""
    gates = [parse(text, "capacity.json, field slo") for text in facts.slo]
    check(gates, facts.target)
    found, curve = interval(gates, facts.steps), points(gates, facts.steps)
    low, high = found.low, found.high
    if facts.terms.by == "concurrency":
        low, high = float(floor(low)), float(ceil(high)) if high < inf else inf
    sentence, code = _verdict(facts, Interval(low, high), curve, " and ".join(gate.text for gate in gates))
    return CapacityResult(
        sentence=sentence, code=code, low=low or None, high=high if high < inf else None,
        estimate=estimate(gates, facts.steps), unit=UNITS[facts.terms.by],
        remedy=_remedy(facts, curve) if code == 3 else "", curve=tuple(curve), facts=facts, folder=folder,
    )  # fmt: skip


def in_words(step: CapacityStep, gates: Sequence[Gate], terms: SearchTerms) -> str:
    """One step in a line."""
    head = f"{amount(step.level):>8} {UNITS[terms.by]}, {step.seconds:,.0f} s"
    if step.lost:
        return f"{head}: decides nothing: {step.lost}"
    gates_in_words = ", ".join(
        f"{tally.share:.2%} beyond {gate.text}" for gate, tally in zip(gates, step.tallies, strict=True)
    )
    waited = f"; its backlog took {step.backlog_s:,.0f} s more" if step.backlog_s >= 1 else ""
    decision = point(gates, step.level, [step]).decision
    return f"{head}: {decision}, {gates_in_words} (n={step.tallies[0].n:,}){waited}"


def _floats(point: Point) -> list[tuple[str, float]]:
    return [(name, getattr(point, name)) for name in ("level", "share", "low", "high", "more_s")]


def amount(level: float) -> str:
    """Three digits, and no exponent."""
    return f"{level:.3g}" if level < 100 else f"{level:,.0f}"


def _verdict(facts: CapacityFacts, found: Interval, curve: Sequence[Point], gates: str) -> tuple[str, int]:
    terms, unit = facts.terms, UNITS[facts.terms.by]
    steps, confirming = len(facts.steps), sum(step.confirms for step in facts.steps)
    after = f"at {gates} ({steps} steps, {confirming} of them to confirm)"
    low, high = amount(found.low), amount(found.high)
    if 0 < found.low < found.high < inf:
        return f"{low} to {high} {unit} {after}", 0
    if found.low >= found.high:
        return f"no verdict: {low} {unit} held and {high} failed {after}: the endpoint didn't stay the same", 3
    if found.low:
        top = curve[-1]
        if top.level >= terms.highest and top.decision is Decision.PASS:
            return f"at least {low} {unit} {after}: {amount(top.level)}, the highest asked for, holds", 0
        return f"no verdict: at least {low} {unit}, and nothing more was shown to fail {after}", 3
    if found.high < inf:
        lowest = curve[0]
        if lowest.decision is Decision.FAIL and lowest.level < 2 * terms.lowest * 2**-HALVINGS:
            return f"no load holds: {amount(lowest.level)} {unit} fails {after}", 1
        return f"no verdict: less than {high} {unit}, and nothing was shown to hold {after}", 3
    return f"no verdict: nothing was shown to hold or to fail {after}", 3


def _remedy(facts: CapacityFacts, curve: Sequence[Point]) -> str:
    """What would decide a search that ended without an answer."""
    unit = UNITS[facts.terms.by]
    if facts.ended == "interrupted":
        return "it was interrupted: let it go on to its end"
    if lost := [step for step in facts.steps if step.lost]:
        return f"at {amount(lost[-1].level)} {unit} nothing was decided: {lost[-1].lost}"
    if open_ := [(point.more_s, point.level) for point in curve if 0 < point.more_s < inf]:
        more_s, level = min(open_)
        return f"about {more_s / 60:,.0f} more minutes at {amount(level)} {unit} would decide it (--budget, --max-step)"
    minutes = CONFIRMED * (1 + WARMUP) * facts.terms.max_step_s / 60
    return f"a longer --budget: three steps that confirm take {minutes:,.3g} minutes"
