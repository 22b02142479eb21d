"""The page of a capacity search: its answer, the curve, and every step. Made from the folder's files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from traces.files import write_whole

from ..analysis import capacity, isotonic
from ..analysis.capacity import CapacityResult, amount
from ..analysis.gates import Decision
from ..store import capacity_json
from .html import render
from .plots import BAD, INK, colour, drawing, log_axis

LOWEST, HIGHEST = 0.02, 200.0  # multiples of what is allowed that are drawn
LOOKS: dict[Decision, dict[str, Any]] = {
    Decision.PASS: {"marker": "o", "color": colour(2)},
    Decision.FAIL: {"marker": "X", "color": BAD},
    Decision.NO_VERDICT: {"marker": "s", "color": INK, "markerfacecolor": "none"},
}


def reported(folder: Path) -> CapacityResult:
    """Writes report.html into the search's folder. Raises InputError."""
    found = capacity.result(folder, capacity_json.read(folder))
    facts = found.facts
    headings = (found.unit, "window s", "n", *(f"beyond {gate}" for gate in facts.slo), "", "run")
    page = render(
        "capacity.html.j2",
        found=found,
        facts=facts,
        curve=curve("capacity", found) if found.curve else None,
        headings=headings,
        rows=[
            (
                amount(step.level),
                f"{step.seconds:,.0f}",
                f"{step.tallies[0].n:,}" if step.tallies else "-",
                *(f"{tally.share:.2%}" for tally in step.tallies),
                *("-" for _ in facts.slo[len(step.tallies) :]),
                "confirms" if step.confirms else step.lost,
                step.folder,
            )
            for step in facts.steps
        ],
        decisions=[
            (amount(each.level), f"{each.share:.2f}", f"{each.low:.2f}–{each.high:.2f}", str(each.decision))
            for each in found.curve
        ],
    )
    write_whole(folder / "report.html", page.encode(errors="replace"))
    return found


@drawing(4.2)
def curve(figure: Figure, found: CapacityResult) -> str:
    """The share beyond the nearest gate against the load: the loads' points, the fitted curve, and the interval."""
    axes = figure.subplots()
    levels = np.array([point.level for point in found.curve])
    shares, lows, highs = (
        np.clip([getattr(point, name) for point in found.curve], LOWEST, HIGHEST) for name in ("share", "low", "high")
    )
    weights = [sum(step.level == level and bool(step.tallies) for step in found.facts.steps) for level in levels]
    axes.plot(levels, isotonic.fit(shares, weights), color=colour(0), drawstyle="steps-mid", alpha=0.7)
    for decision, look in LOOKS.items():
        of = np.array([point.decision is decision for point in found.curve])
        if of.any():
            reach = np.vstack([shares - lows, highs - shares])[:, of]
            axes.errorbar(levels[of], shares[of], reach, linestyle="none", capsize=3, label=str(decision), **look)
    axes.axhline(1.0, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)), label="allowed")
    axes.set(yscale="log", xlabel=found.unit, title="Requests beyond the gate, in multiples of what it allows")
    axes.set_xlim(levels.min() / 1.15, levels.max() * 1.15)
    log_axis(axes, "x")
    log_axis(axes, "y")
    left, right = axes.get_xlim()
    if found.low or found.high:
        axes.axvspan(found.low or left, found.high or right, color=colour(0), alpha=0.13, linewidth=0)
        axes.set_xlim(left, right)
    axes.legend(frameon=False, loc="upper left")
    return (
        f"Each point is all steps at one load, with one-sided 95 % bounds; shares below {LOWEST:g} are drawn there. "
        "The line is the fitted curve that only rises (isotonic regression); shaded: where the capacity lies."
    )
