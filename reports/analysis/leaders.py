"""Who leads which phase at which load, and where a lead is lost: words over a summary. Pure.

A target is beaten where another answers the same requests faster (`reports.analysis.comparison`: the paired interval excludes 1) by
LEAST or more. The fastest of those that nobody beats leads; others lead with it where neither the paired interval nor
the medians' own tell them apart, and where they too are ahead of the one named as behind. A target whose failures leave
its median or its interval unbounded can't lead: it is named as failed. Targets that can't be compared with the others
stand aside, as few of them as possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

from .. import number_format
from . import comparison

LEAST = 1.02  # a difference of less than 2 % is no lead, however many pairs prove it
PHASES = {"ttft": "prefill", "tpot": "decode", "e2e": "whole request"}


@dataclass(frozen=True, slots=True)
class Lead:
    """The fastest of one step in one metric: `leaders` are level, and each `factor` times or more faster than `behind`.

    `why` says why there are no leaders, or why those named in `aside` take no part (too few pairs, not comparable);
    `failed` are those with too many failures for a median.
    """

    step: str
    leaders: tuple[str, ...]
    p50: float | None = None
    behind: str = ""
    factor: float = 0.0
    why: str = ""
    aside: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        return " and ".join(self.leaders) if len(self.leaders) < 3 else ", ".join(self.leaders)

    @property
    def ahead(self) -> str:
        """How far ahead of whom; empty where there is nobody behind."""
        if not self.behind:
            return ""
        return (
            f"{number_format.factor(self.factor)} ahead of {self.behind}"
            if self.factor
            else f"{self.behind} mostly failed"
        )

    @property
    def without(self) -> str:
        """Who takes no part, and why."""
        failed = f"failed: {', '.join(self.failed)}" if self.failed else ""
        aside = f"without {', '.join(self.aside)}: {self.why}" if self.aside else ""
        return "; ".join(part for part in (failed, aside) if part)

    def __str__(self) -> str:
        without = f" ({self.without})" if self.without else ""
        if not self.leaders:
            return f"{self.why}{without}"
        figure = f" {number_format.ms(self.p50, unit=True)}"
        if self.behind:
            return f"{self.names}{figure}, {self.ahead}{without}"
        return f"{'no clear difference,' if len(self.leaders) > 1 else self.names}{figure}{without}"


def p50(result: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == 0.5)
    return found


def steps(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(result["step"] for result in summary["results"]))


def leads(summary: Mapping[str, Any], metric: str) -> list[Lead]:
    """One for each step in which there are two targets or more."""
    found = []
    for step in steps(summary):
        rows = {r["target"]: p50(r, metric) for r in summary["results"] if r["step"] == step}
        pairs = [pair for pair in summary["comparison"] if pair["step"] == step]
        if len(rows) > 1:
            found.append(_lead(step, metric, rows, pairs))
    return found


def _lead(step: str, metric: str, rows: Mapping[str, Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> Lead:
    failed = tuple(name for name, row in rows.items() if row["unbounded"] or (row["enough"] and row["high"] is None))
    pairs = _among(set(rows) - set(failed), pairs)
    faults = {(pair["base"], pair["other"]): fault for pair in pairs if (fault := _fault(pair, metric))}
    aside = _aside(faults)
    why = next((fault for both, fault in faults.items() if set(both) & set(aside)), "")
    medians = {name: row["value"] for name, row in rows.items() if name not in (*failed, *aside)}
    medians = {name: value for name, value in medians.items() if value is not None}
    if len(medians) + len(failed) < 2 or not medians:
        return Lead(step, (), why=why if aside else "no leader", failed=failed)
    pairs = _among(set(medians), pairs)
    beats = {(winner, loser): factor for winner, loser, factor in _beats(pairs, metric)}
    order = sorted(medians, key=lambda name: medians[name])
    beaten = {loser for _, loser in beats}
    first = next((name for name in order if name not in beaten), order[0])
    behind = next((name for name in order if (first, name) in beats), "")
    leaders = [first]
    for name in order:
        level = name not in (first, *beaten) and _level(rows[first], rows[name], _most(pairs, metric, first, name))
        ahead = not behind or ((name, behind) in beats and medians[name] <= medians[behind])
        if level and ahead:
            leaders.append(name)
    factor = min(beats[leader, behind] for leader in leaders) if behind else 0.0
    return Lead(step, tuple(leaders), medians[first], behind, factor, why, aside, failed)


def _among(names: set[str], pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [pair for pair in pairs if {pair["base"], pair["other"]} <= names]


def _level(first: Mapping[str, Any], other: Mapping[str, Any], most: float) -> bool:
    """Nothing tells the two medians apart: they differ by no more than `most`, or their intervals overlap."""
    overlap = first["enough"] and other["enough"] and other["low"] <= first["high"]
    return bool(overlap or other["value"] <= most * first["value"])


def _most(pairs: Sequence[Mapping[str, Any]], metric: str, first: str, other: str) -> float:
    """How many times slower than `first` the paired interval lets `other` be; LEAST at least."""
    pair = next(pair for pair in pairs if {pair["base"], pair["other"]} == {first, other})
    low, high = (pair["metrics"][metric]["median"][end] for end in ("low", "high"))
    most = high if pair["base"] == first else 1 / low if low else None
    return inf if most is None else max(LEAST, most)


def _fault(pair: Mapping[str, Any], metric: str) -> str:
    """Why the two can't be compared; "" where they can."""
    if metric == "e2e" and pair["pairs"] and not pair["lengths"]["comparable"]:
        return "not comparable: the targets gave answers of different length"
    return "too few pairs" if pair["metrics"][metric] is None else ""


def _aside(faults: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Targets to leave out until no faulty pair is left: each time the one that is in most of them."""
    left, found = list(faults), []
    while left:
        found.append(Counter(name for both in left for name in both).most_common(1)[0][0])
        left = [both for both in left if found[-1] not in both]
    return tuple(sorted(found))


def _beats(pairs: Sequence[Mapping[str, Any]], metric: str) -> Iterator[tuple[str, str, float]]:
    """(winner, loser, how many times faster; 0 where the loser failed too often to say)."""
    for pair in pairs:
        found = pair["metrics"][metric]
        if not found["winner"]:
            continue
        won = found["winner"] == pair["base"]
        ratio = found["median"]["value"]
        factor = (ratio or 0.0) if won else (1 / ratio if ratio else 0.0)
        if factor == 0 or factor >= LEAST:
            yield found["winner"], pair["other"] if won else pair["base"], factor


def flips(found: Sequence[Lead]) -> Iterator[tuple[Lead, Lead]]:
    """Neighbouring steps (of those with leaders) that have no leader in common."""
    for before, after in pairwise(lead for lead in found if lead.leaders):
        if not set(before.leaders) & set(after.leaders):
            yield before, after


def matrix(summary: Mapping[str, Any]) -> list[tuple[str, list[Lead]]]:
    """A row a phase, a lead a step; empty for a single target."""
    rows = [(f"{phase} {metric.upper()}", leads(summary, metric)) for metric, phase in PHASES.items()]
    return [row for row in rows if row[1]]


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What a person should remember beside the matrix: where leads are lost; a single target's figures."""
    if len({result["target"] for result in summary["results"]}) == 1:
        return [_alone(result) for result in summary["results"]]
    said = []
    for metric, phase in PHASES.items():
        said += [
            f"The lead in {phase} flips at {after.step}: {before.names} lost it to {after.names}."
            for before, after in flips(leads(summary, metric))
        ]
        said += [
            f"{phase.capitalize()}: {leader}'s lead over {follower} is gone at about {at:.0f} requests in flight."
            for leader, follower, at in comparison.crossovers(summary, metric)
        ]
    return said


def _alone(result: Mapping[str, Any]) -> str:
    """One target has nobody to lead: its figures in a sentence."""
    told = []
    for metric, phase in PHASES.items():
        rows = {row["q"]: row for row in result["metrics"][metric]["quantiles"]}
        p99 = f", p99 {number_format.duration(rows[0.99])}" if rows[0.99]["enough"] else ""
        told.append(f"{phase} {metric.upper()} p50 {number_format.duration(rows[0.5])}{p99}")
    where = " at ".join(part for part in (result["target"], result["step"]) if part)
    return f"{where}: {'; '.join(told)}."
