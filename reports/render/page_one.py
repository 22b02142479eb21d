"""Page one's table as cells of text, for the terminal and for the page: a row for each figure, a column a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan

from .. import number_format
from ..analysis.page_one import PageOne, TargetFigures
from ..analysis.quantiles import Quantile
from . import findings

NONE = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, and what stands beneath it: its interval, or what it lacks."""

    figure: str
    beneath: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    heading: str
    cells: tuple[Cell, ...]


def lines(page: PageOne) -> list[Line]:
    """Without those of which no target has anything: `not_measured` names them."""
    every = [Line(heading, tuple(map(cell, page.targets))) for heading, cell in ROWS.items()]
    return [line for line in every if any(cell != Cell(NONE) for cell in line.cells)]


def load(page: PageOne) -> str:
    """The decisive load in words."""
    return ", ".join(part for part in (page.step, page.load) if part)


def _latency(row: Quantile) -> Cell:
    if not row.enough:
        return Cell(NONE, findings.lacking(row))
    return Cell(number_format.ms(row.value, unit=True), findings.interval(row) or findings.lacking(row))


def _share(value: float | None) -> Cell:
    return Cell(NONE if value is None else number_format.share(value))


def _passes(target: TargetFigures) -> Cell:
    if target.passes is None:
        return Cell(NONE)
    step, _, words = target.passes.partition(", ")
    return Cell(step or "none", words)


def _state(target: TargetFigures) -> Cell:
    return Cell(str(target.steadiness.state), target.headroom.why if target.headroom.shown else target.steadiness.why)


def _worth(target: TargetFigures) -> Cell:
    less = target.effective is not None and target.effective < target.n
    return Cell(f"{target.n:,}", f"worth {target.effective:,.0f} independent" if less else "")


def _worst(target: TargetFigures) -> Cell:
    if target.worst is None or isnan(target.worst.ttft):
        return Cell(NONE)
    figure = f"TTFT {number_format.label(target.worst.q)} {number_format.ms(target.worst.ttft, unit=True)}"
    return Cell(f"round {target.worst.round}", figure)


ROWS: dict[str, Callable[[TargetFigures], Cell]] = {
    "Prefill: TTFT p50": lambda target: _latency(target.ttft_p50),
    "TTFT p99": lambda target: _latency(target.ttft_p99),
    "Decode: TPOT p50": lambda target: _latency(target.tpot_p50),
    "TPOT p99": lambda target: _latency(target.tpot_p99),
    "Longest stall p99": lambda target: _latency(target.stall_p99),
    "State": _state,
    "Met the SLO": lambda target: _share(target.slo_met),
    "Errors": lambda target: _share(target.errors),
    "Refused": lambda target: _share(target.refused),
    "Highest load that passes": _passes,
    "Million output tokens\nthat met the SLO": lambda target: Cell(number_format.dollars(target.dollars)),
    "Requests": _worth,
    "Rounds": lambda target: Cell(f"{target.rounds:,}"),
    "Worst round": _worst,
}
