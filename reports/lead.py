"""Who wins which phase in which load step, and where a lead is lost: sentences over a summary. Pure.

Targets whose 95 % intervals of the p50 overlap the fastest one's share its lead: nothing is said about who is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from . import units

PHASES = (("ttft", "prefill", "TTFT p50"), ("tpot", "decode", "TPOT p50"), ("e2e", "whole request", "E2E p50"))


@dataclass(frozen=True, slots=True)
class Lead:
    """The fastest of one step in one metric (p50, s): `leaders` are level, `behind` is the first that clearly isn't."""

    step: str
    leaders: tuple[str, ...]
    value: float
    behind: str = ""
    behind_value: float = 0.0

    @property
    def names(self) -> str:
        return " and ".join(self.leaders) if len(self.leaders) < 3 else ", ".join(self.leaders)


def p50(result: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == 0.5)
    return found


def steps(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(result["step"] for result in summary["results"]))


def leads(summary: Mapping[str, Any], metric: str) -> list[Lead]:
    """One for each step in which two targets or more have a bounded p50."""
    found = []
    for step in steps(summary):
        ranked = sorted(_bounded(summary["results"], step, metric), key=lambda pair: float(pair[1]["value"]))
        if len(ranked) < 2:
            continue
        top = ranked[0][1]
        level = [name for name, row in ranked if top["high"] is None or row["low"] <= top["high"]]
        behind = [(name, row["value"]) for name, row in ranked if name not in level]
        found.append(Lead(step, tuple(level), top["value"], *(behind[0] if behind else ())))
    return found


def _bounded(results: Sequence[Mapping[str, Any]], step: str, metric: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for result in results:
        row = p50(result, metric)
        if result["step"] == step and row["enough"] and row["value"] is not None:
            yield result["target"], row


def flips(found: Sequence[Lead]) -> Iterator[tuple[Lead, Lead]]:
    """Neighbouring steps that have no leader in common."""
    for before, after in pairwise(found):
        if not set(before.leaders) & set(after.leaders):
            yield before, after


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What a person should remember, in order of phase."""
    if len({result["target"] for result in summary["results"]}) == 1:
        return [_alone(result) for result in summary["results"]]
    said = []
    for metric, phase, name in PHASES:
        found = leads(summary, metric)
        said += [_sentence(lead, phase, name) for lead in found]
        said += [
            f"The lead in {phase} flips at {after.step}: {before.names} lost it to {after.names}."
            for before, after in flips(found)
        ]
    return said


def _sentence(lead: Lead, phase: str, name: str) -> str:
    where = f"{phase.capitalize()}{f' at {lead.step}' if lead.step else ''}"
    if not lead.behind:
        return f"{where}: no clear difference between {lead.names}, {name} about {units.ms(lead.value, unit=True)}."
    verb = "is fastest" if len(lead.leaders) == 1 else "are level"
    ahead = units.factor(lead.behind_value / lead.value) if lead.value else "far"
    return f"{where}: {lead.names} {verb}, {name} {units.ms(lead.value, unit=True)}, {ahead} ahead of {lead.behind}."


def _alone(result: Mapping[str, Any]) -> str:
    """One target has nobody to lead: its figures in a sentence."""
    told = []
    for metric, phase, _ in PHASES:
        rows = {row["q"]: row for row in result["metrics"][metric]["quantiles"]}
        p99 = f", p99 {units.duration(rows[0.99])}" if rows[0.99]["enough"] else ""
        told.append(f"{phase} {metric.upper()} p50 {units.duration(rows[0.5])}{p99}")
    where = " at ".join(part for part in (result["target"], result["step"]) if part)
    return f"{where}: {'; '.join(told)}."
