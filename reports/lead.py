"""Who wins which phase in which load step, and where a lead is lost: sentences over a summary. Pure.

A lead counts only where the two 95 % intervals of the p50 don't overlap; otherwise it is said that none is clear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

from . import units

PHASES = (("ttft", "prefill", "TTFT p50"), ("tpot", "decode", "TPOT p50"), ("e2e", "whole request", "E2E p50"))


@dataclass(frozen=True, slots=True)
class Lead:
    """The fastest target of one step in one metric (p50, s). `second` is the runner-up; `clear`: intervals apart."""

    step: str
    metric: str
    winner: str
    value: float
    second: str
    second_value: float
    clear: bool

    @property
    def factor(self) -> float:
        return self.second_value / self.value if self.value else inf


def p50(result: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == 0.5)
    return found


def steps(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(result["step"] for result in summary["results"]))


def leads(summary: Mapping[str, Any], metric: str) -> list[Lead]:
    """One for each step in which two targets or more have a bounded p50."""
    found = []
    for step in steps(summary):
        ranked = sorted(_bounded(summary["results"], step, metric), key=lambda pair: pair[1]["value"])
        if len(ranked) > 1:
            (winner, best), (second, next_) = ranked[:2]
            clear = best["high"] is not None and best["high"] < next_["low"]
            found.append(Lead(step, metric, winner, best["value"], second, next_["value"], clear))
    return found


def _bounded(results: Sequence[Mapping[str, Any]], step: str, metric: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for result in results:
        row = p50(result, metric)
        if result["step"] == step and row["enough"] and row["value"] is not None:
            yield result["target"], row


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What a person should remember, in order of phase; empty for a single target."""
    said = []
    for metric, phase, name in PHASES:
        found = leads(summary, metric)
        for lead in found:
            where = f" at {lead.step}" if lead.step else ""
            if lead.clear:
                said.append(
                    f"{phase.capitalize()}{where}: {lead.winner} is fastest, {name} {units.ms(lead.value)} ms, "
                    f"{units.factor(lead.factor)} ahead of {lead.second}."
                )
            else:
                said.append(f"{phase.capitalize()}{where}: no clear winner between {lead.winner} and {lead.second}.")
        said += _flips(found, phase)
    return said


def _flips(found: Sequence[Lead], phase: str) -> Iterator[str]:
    clear = [lead for lead in found if lead.clear]
    for before, after in pairwise(clear):
        if before.winner != after.winner:
            yield f"The lead in {phase} flips at {after.step}: {before.winner} loses it to {after.winner}."
