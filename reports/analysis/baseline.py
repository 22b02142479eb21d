"""Did a figure get worse than in an earlier run, by more than it may? "ttft p99 10%" on the requests of both. Pure.

Theory of operation. The two runs sent the same requests at the same instants, so each is paired with itself, and the
question is about one ratio r = after / before of a figure. For a ratio that is put to the test every pair has a
deviation d whose expectation is 0 where the figure's true ratio is r:

    q-quantile   d = [after / r > x] - [before > x], x the q-quantile of both sides together (failures are inf)
    mean, rate   d = after - r * before

Pairs that share a queue are not independent, so the mean of d has its standard error from the batches of the window
(from the rounds, where there are five or more), never less than that of independent pairs, and Student's t decides:
the ratio is above r where the mean is above 0 by t(95 %) standard errors. PASS: the ratio is below the allowed one;
FAIL: it is above; else, and where fewer than BEYOND independent pairs lie beyond the quantile, NO VERDICT. The ends of
the interval are the ratios at which the test turns (Fieller 1954, for means).
`bench.decisions` measures how often such verdicts are false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from traces.errors import InputError

from ..store.digests import UNADJUSTED
from ..store.run_folder import Key, Run
from . import samples
from .gate_grammar import LATENCIES, Allowance, Gate, parse_allowance
from .gates import Decision
from .judgement import Regression
from .quantiles import BATCHES, BEYOND, ONE_SIDED, Counts, Values, batch_of, finite
from .samples import Sample
from .student import t

if TYPE_CHECKING:
    import pandas as pd

    from .summary import Summary

ROUNDS = 5  # from which on rounds are the units, and not their batches
WIDEST = 64.0  # ratios beyond it, or below its inverse, count as unbounded
STEPS = 24  # of a bisection: ends are exact to a millionth of the widest ratio's logarithm
POWER = 0.8416  # the normal quantile of 80 %
LONGEST = 50  # times what was measured: beyond it the figure is too near to its limit to tell


@dataclass(frozen=True, slots=True)
class Pairs:
    """Both sides of each request that has a figure in both runs, failures inf (0 of a rate), and the unit of time, a
    batch or a round, in which it was due."""

    before: Values
    after: Values
    unit: Counts
    units: int

    def deviation(self, r: float, q: float | None) -> Values:
        """d of each pair for the ratio r; `q` None: of means."""
        if q is None:
            return self.after - r * self.before
        scaled = self.after / r
        both = np.concatenate([self.before, scaled])
        rank = min(len(both) - 1, ceil(q * len(both)) - 1)
        x = np.partition(both, rank)[rank]
        d: Values = (scaled > x).astype(float) - (self.before > x)
        return d

    def lead(self, r: float, q: float | None) -> float:
        """By how many standard errors the ratio is above r."""
        mean, error, _ = self._errors(r, q)
        return mean / error if error else inf * np.sign(mean) if mean else 0.0

    def worth(self, q: float | None) -> float:
        """The independent pairs that these are worth."""
        _, error, independent = self._errors(1.0, q)
        return len(self.before) * (independent / error) ** 2 if error else float(len(self.before))

    def _errors(self, r: float, q: float | None) -> tuple[float, float, float]:
        """The mean of d, its standard error, and what that of independent pairs would be."""
        d = self.deviation(r, q)
        n, mean = len(d), float(d.mean())
        sums = np.bincount(self.unit, d - mean, minlength=self.units)
        clustered = sqrt(self.units / (self.units - 1) * float(np.sum(sums**2))) / n
        independent = float(d.std()) / sqrt(n)
        return mean, max(clustered, independent), independent

    def ratio(self, q: float | None) -> float:
        """The ratio at which neither side leads; the middle of such ratios."""
        return sqrt(_turn(lambda r: self.lead(r, q) > 0) * _turn(lambda r: self.lead(r, q) >= 0))

    def interval(self, q: float | None) -> tuple[float, float]:
        """Ratios below and above which the true one is, each with 95 %."""
        limit = t(self.units - 1, ONE_SIDED)
        low = _turn(lambda r: self.lead(r, q) > limit)
        high = _turn(lambda r: self.lead(r, q) >= -limit)
        return (0.0 if low <= 1 / WIDEST else low), (inf if high >= WIDEST else high)


def _turn(holds: Callable[[float], bool]) -> float:
    """The ratio up to which something holds."""
    low, high = 1 / WIDEST, WIDEST
    if not holds(low):
        return low
    if holds(high):
        return high
    for _ in range(STEPS):
        middle = sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return sqrt(low * high)


def regressions(
    runs: tuple[Run, Run], summaries: tuple[Summary, Summary], allowances: Sequence[Allowance | str]
) -> list[Regression]:
    """Each allowance ("ttft p99 10%") on every target and load step of the later run that it concerns and the earlier
    one has. `runs`, `summaries`: before and after, the second's objectives those of both. Raises InputError where the
    runs are unlike (it says in what), and for an allowance that concerns nothing."""
    check_alike(*runs)
    before, after = (summary.samples for summary in summaries)
    keys = _common(before, after)
    verdicts = []
    for allowance in (parse_allowance(each) if isinstance(each, str) else each for each in allowances):
        if allowance.metric == "itl":
            remedy = "tpot is the mean gap of a request"
            raise InputError("gaps belong to no request: there are no pairs", where=allowance.text, remedy=remedy)
        if allowance.metric == "goodput" and not summaries[1].objectives:
            remedy = "add --goodput ttft:800 tpot:40"
            raise InputError("a regression of goodput needs objectives", where=allowance.text, remedy=remedy)
        concerned = [key for key in keys if allowance.target in ("", key[1][0]) and allowance.step in ("", key[1][1])]
        if not concerned:
            there = ", ".join("@".join(filter(None, key)) for _, key in keys)
            raise InputError("no such target or step in both runs", where=allowance.text, remedy=f"there are {there}")
        verdicts += [_verdict(allowance, before[a], after[b]) for a, b in concerned]
    return verdicts


def _common(before: Mapping[Key, Sample], after: Mapping[Key, Sample]) -> list[tuple[Key, Key]]:
    """The same target and step in both; single targets are paired whatever their names."""
    keys: list[tuple[Key, Key]] = [(key, key) for key in after if key in before]
    if not keys and len({target for target, _ in before}) == len({target for target, _ in after}) == 1:
        keys = [(a, b) for b in after for a in before if a[1] == b[1]]
    if not keys:
        raise InputError("the runs have no target and load step in common", where="--baseline")
    return keys


def check_alike(before: Run, after: Run) -> None:
    """Raises InputError where the two runs differ in more than their servers: trace, load, model, client."""
    differing = []
    for name, value in _facts(before).items():
        later = _facts(after).get(name)
        if later is not None and later != value:
            differing.append(f"{name} ({value} and {later})")
    if differing:
        where = f"{before.place} and {after.place}"
        remedy = "a regression is told from runs that differ in their servers alone"
        raise InputError(f"the runs differ in {', '.join(differing)}", where=where, remedy=remedy)


def _facts(run: Run) -> dict[str, object]:
    """What must be equal, by the words in which it is said to differ."""
    named: dict[str, object] = {}
    for part in run.parts:
        facts = part.facts
        of_round = f" of round {part.round}" if run.rounds else ""
        named[f"trace{of_round}"] = facts.trace.fingerprint[:12] if facts.trace else "unknown"
        named[f"prompts{of_round}"] = facts.prompts.fingerprint[:12] if facts.prompts else "none"
        named["client's version"] = facts.version
        named["time"] = "virtual" if facts.simulated else "real"
        for step in facts.steps:
            begin, end = step.window
            window = "" if end is None else f", {(end - begin) / 1e9:.0f} s"
            named[f"load of {step.name}"] = f"{step.load}{window}"
    targets = run.facts.targets
    for target in targets:
        about = "" if len(targets) == 1 else f" of {target.name}"
        named |= {f"model{about}": target.model, f"endpoint type{about}": target.endpoint_type}
    return named


def _verdict(allowance: Allowance, before: Sample, after: Sample) -> Regression:
    if allowance.where:
        before, after = samples.sliced(before, allowance.where), samples.sliced(after, allowance.where)
    q, upwards = allowance.q, allowance.metric in LATENCIES
    pairs = pairs_of(before, after, allowance.metric, answered=upwards and q is None)
    n, least = len(pairs.before), ceil(BEYOND / min(q, 1 - q) - 1e-9) if q else 2 * BATCHES
    verdict = Regression(
        _gate(allowance), after.target, after.step, Decision.NO_VERDICT, None, n,
        rounds=len(after.rounds), before=_figure(allowance, before), after=_figure(allowance, after),
    )  # fmt: skip
    worth = pairs.worth(q) if n else 0.0
    if worth < least:
        more_s = after.window_s * (least / worth - 1) if worth else inf
        note = f"{n} requests of both runs, worth {worth:,.0f}, needs {least}{_longer(more_s)}"
        return replace(verdict, effective=worth, note=note, more_s=more_s)
    ratios = (pairs.ratio(q), *pairs.interval(q))
    figure, low, high = (r - 1 for r in ratios) if upwards else (1 - ratios[i] for i in (0, 2, 1))
    limit, lead = t(pairs.units - 1, ONE_SIDED), pairs.lead(1 + allowance.limit * (1 if upwards else -1), q)
    worse = lead if upwards else -lead
    notes = [] if before.failed == after.failed else [f"{before.failed} of {before.n} failed, now {after.failed}"]
    decision = Decision.FAIL if worse > limit else Decision.PASS if worse < -limit else Decision.NO_VERDICT
    if upwards and decision is not Decision.FAIL and (before.steadiness.overloaded or after.steadiness.overloaded):
        decision, undecided = Decision.NO_VERDICT, "overloaded: its times depend on the run's length"
        return replace(verdict, decision=decision, figure=figure, low=low, high=high, note=undecided, effective=worth)
    longer_s = _more_s(abs(worse), limit, after.window_s) if decision is Decision.NO_VERDICT else None
    if longer_s is not None:
        notes.append(f"worth {worth:,.0f}{_longer(longer_s)}")
    return replace(
        verdict, decision=decision, figure=figure, low=low, high=high, note="; ".join(notes), more_s=longer_s,
        effective=worth,
    )  # fmt: skip


def _longer(more_s: float) -> str:
    if more_s == inf:
        return ": too near to the limit to tell"
    return (
        f": run both about {more_s:,.0f} s longer"
        if more_s < 120
        else f": run both about {more_s / 60:,.0f} min longer"
    )


def _gate(allowance: Allowance) -> Gate:
    return Gate(
        allowance.text, allowance.metric, allowance.statistic, "<", allowance.limit, "%", allowance.target,
        allowance.step, allowance.where, allowance.name,
    )  # fmt: skip


def _more_s(lead: float, limit: float, seconds: float) -> float:
    """Further seconds after which a lead that goes on as it is would be beyond the limit, with a power of 80 %."""
    times = ((limit + POWER) / lead) ** 2 if lead else inf
    return inf if times > LONGEST else seconds * max(0.0, times - 1)


def pairs_of(before: Sample, after: Sample, metric: str, *, answered: bool = False) -> Pairs:
    """The first tries of the requests that both samples counted, by round and index; `answered`: in both runs."""
    sides = {each.round: each for each in before.rounds}
    common = [(sides[each.round], each) for each in after.rounds if each.round in sides]
    by_round = len(common) >= ROUNDS
    parts = []
    for number, (first, second) in enumerate(common):
        frames = [_values(each, metric) for each in (first, second)]
        both = frames[0].merge(frames[1], on="index", suffixes=("_before", "_after"))
        both = both.dropna(subset=["value_before", "value_after"])
        if answered:
            both = both[np.isfinite(both["value_before"]) & np.isfinite(both["value_after"])]
        batch = batch_of(both["due_before"].to_numpy(), first.window).astype(np.int64)
        unit = np.full(len(both), number) if by_round else number * BATCHES + batch
        parts.append((both["value_before"].to_numpy(), both["value_after"].to_numpy(), unit))
    if not parts:  # each run has lost the rounds that the other has
        return Pairs(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), 0)
    earlier, later, units = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Pairs(earlier, later, units, len(common) if by_round else len(common) * BATCHES)


def _values(sample: Sample, metric: str) -> pd.DataFrame:
    """Index, due and value of each counted request: seconds, failures inf; 1 of a good one; tokens; 1 of an answer."""
    rows = sample.counted
    rows = rows[rows["attempt"] == 1]
    ok = rows["ok"].to_numpy()
    if metric in LATENCIES:
        value = rows[metric].to_numpy() if metric in UNADJUSTED else np.where(ok, rows[metric], inf)
    elif metric == "goodput":
        value = (ok & samples.meets(rows, sample.objectives).to_numpy()).astype(float)
    else:
        value = np.where(ok, rows["output_count"] if metric == "tokens" else 1.0, 0.0)
    return rows[["index", "due"]].assign(value=value)


def _figure(allowance: Allowance, sample: Sample) -> float | None:
    if allowance.q is not None:
        return finite(sample.quantile(allowance.metric, allowance.q).value)
    if allowance.metric in LATENCIES:
        values = sample.values[allowance.metric]
        return float(values.mean()) if len(values) else None
    rates = sample.throughput
    return {"requests": rates.requests_per_s, "tokens": rates.output_tokens_per_s}.get(allowance.metric, sample.goodput)
