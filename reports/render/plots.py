"""The plots of the report, each a function from a name and numbers to inline SVG (see `pages`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from traces.request import NS_PER_S

from ..analysis import samples
from ..analysis.phases import Part
from ..analysis.quantiles import Quantile, Values
from ..analysis.samples import Slice
from ..store.durations import HEADLINES
from .pages import BAD, GRID, INK, drawing, line, placeholder, stroke

MARKERS = "osD^vPX*"
POINTS = 300  # of a curve
FEW = "no or too few answered requests"
Curves = Mapping[int, tuple[Values, int]]  # target's number -> sorted seconds, requests that failed


@drawing(3.5)
def cdfs(figure: Figure, ttft: Curves, tpot: Curves) -> None:
    """TTFT and TPOT side by side: the share of requests that were at most that slow. Failures never arrive at 1."""
    left, right = figure.subplots(1, 2)
    _cdf(left, ttft, "Prefill: TTFT")
    _cdf(right, tpot, "Decode: TPOT")
    left.set_ylabel("share of requests")


def _cdf(axes: Axes, curves: Curves, title: str, empty: str = "no answered request") -> None:
    for target, (values, failed) in curves.items():
        if not len(values):
            continue
        _shares(axes, np.maximum(values, 1e-6), len(values) + failed, **stroke(target))
    for level in (0.5, 0.99):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (2, 3)))
    axes.set_title(title)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 0.99]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _log_seconds(axes, empty=empty)


def _shares(axes: Axes, values: Values, whole: int, **style: Any) -> None:
    """The share of `whole` that is at most so large, for sorted values."""
    chosen = np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))
    axes.step(values[chosen], (chosen + 1) / whole, where="post", **style)


def _empty(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.5, 0.6), xycoords="axes fraction", ha="center", color=INK)


def _log_seconds(axes: Axes, axis: str = "x", *, empty: str) -> None:
    which = getattr(axes, f"{axis}axis")
    if not _shows(axes, axis):
        which.set_ticks([])
        _empty(axes, empty)
        return
    getattr(axes, f"set_{axis}scale")("log")
    low, high = which.get_view_interval()
    span = high / max(low, 1e-12)
    which.set_major_locator(
        LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if span < 8 else (1, 2, 5) if span < 50 else (1,), numticks=12)
    )
    which.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    which.set_minor_formatter(NullFormatter())


def _shows(axes: Axes, axis: str) -> bool:
    """Is there anything positive to draw? A logarithmic axis needs it."""
    high = getattr(axes.dataLim, f"{axis}1")
    return bool(np.isfinite(high) and high > 0)


def seconds(value: float) -> str:
    """An axis label: 200 us, 5 ms, 2 s."""
    if value >= 0.9995:
        return f"{value:g} s"
    return f"{value * 1e3:g} ms" if value >= 0.9995e-3 else f"{value * 1e6:g} µs"


@drawing(3.5)
def in_flight(figure: Figure, tables: Mapping[int, Sequence[Slice]]) -> None:
    """p50 of TTFT, TPOT and E2E with intervals, against the target's own requests in flight when one was sent."""
    panels = figure.subplots(1, 3)
    for axes, (metric, phase) in zip(panels, HEADLINES.items(), strict=True):
        for target, rows in tables.items():
            _sliced(axes, rows, metric, target)
        axes.set_title(f"{phase.capitalize()}: {metric.upper()} p50")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("in flight at send")
        _log_seconds(axes, "y", empty=FEW)


def bounded(median: Quantile) -> bool:
    """Has it a figure, of a sample that bounds it?"""
    return median.enough and isfinite(median.value)


def _sliced(axes: Axes, rows: Sequence[Slice], metric: str, target: int) -> None:
    """Points only where the sample bounds the median."""
    edges = [*samples.SLICES["in_flight"], 2 * samples.SLICES["in_flight"][-1]]
    points = [(row.low, row.p50(metric)) for row in rows if bounded(row.p50(metric)) and row.p50(metric).value]
    if not points:
        return
    x = np.array([(edge * (edges[edges.index(edge) + 1] - 1)) ** 0.5 for edge, _ in points])
    y = np.array([point.value for _, point in points])
    low = np.array([point.low for _, point in points])
    high = np.array([point.high if isfinite(point.high) else point.value for _, point in points])
    colour = placeholder(target)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=colour, marker=MARKERS[target % len(MARKERS)], markersize=4.5, linestyle=line(target))


@drawing(3.2)
def by_step(
    figure: Figure,
    steps: int,
    medians: Mapping[str, Mapping[int, Sequence[Quantile | None]]],
    flips: Mapping[str, list[int]],
) -> None:
    """p50 of each metric against the load step; `flips`: where (metric -> step numbers) the lead changes hands."""
    panels = figure.subplots(1, 3)
    for axes, (metric, phase) in zip(panels, HEADLINES.items(), strict=True):
        for target, rows in medians[metric].items():
            points = [(x, median.value) for x, median in enumerate(rows) if median and bounded(median)]
            x, y = [x for x, _ in points], [y for _, y in points]
            axes.plot(x, y, color=placeholder(target), marker=MARKERS[target % len(MARKERS)], linestyle=line(target))
        for number in flips.get(metric, []):
            axes.axvline(number - 0.5, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate("lead lost", (number - 0.5, 0.02), xycoords=("data", "axes fraction"), color=BAD,
                          xytext=(-4, 0), textcoords="offset points", ha="right", fontsize=9.5)  # fmt: skip
        axes.set_title(f"{phase.capitalize()}: {metric.upper()} p50")
        axes.set_xticks(range(steps), [f"step {number + 1}" for number in range(steps)])
        axes.set_xlim(-0.3, steps - 0.7)
        _log_seconds(axes, "y", empty=FEW)


@drawing(5.2)
def timeline(
    figure: Figure, rows: pd.DataFrame, numbers: Mapping[str, int], windows: Sequence[tuple[float, float]]
) -> None:
    """Arrivals, requests in flight, and failures over the run's seconds; windows (ns) are shaded."""
    arrivals, open_, failures = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.4, 0.8])
    start, end = (
        float(rows["due"].min()) / NS_PER_S,
        float(np.nanmax([rows["due"].max(), rows["done"].max()])) / NS_PER_S,
    )
    edges = bins(start, end)
    width = edges[1] - edges[0]
    for target, part in rows.groupby("target", observed=True):
        counts, _ = np.histogram(part["due"] / NS_PER_S, edges)
        arrivals.stairs(counts / width, edges, baseline=None, **stroke(numbers[str(target)]), linewidth=1.2)
        changes = np.unique(part[["due", "done"]].to_numpy(np.float64))  # nan where a request was never over
        at = edges * NS_PER_S if len(part) > POINTS else changes[np.isfinite(changes)]
        open_.step(
            at / NS_PER_S, samples.backlog(part, at), where="post", **stroke(numbers[str(target)]), linewidth=1.4
        )
        failed = part.loc[~part["ok"]]
        counts, _ = np.histogram(failed["done"].fillna(failed["due"]) / NS_PER_S, edges)
        failures.stairs(counts / width, edges, baseline=None, **stroke(numbers[str(target)]), linewidth=1.4)
    for axes, title in (
        (arrivals, "Arrivals per second (due)"),
        (open_, "Due and not over"),
        (failures, "Failures per second"),
    ):
        axes.set_title(title)
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for begin, finish in windows:
            axes.axvspan(begin / NS_PER_S, finish / NS_PER_S, color=GRID, alpha=0.25, linewidth=0)
    failures.set_xlabel("seconds from the run's start; shaded: the windows that count")


def bins(start: float, end: float) -> Values:
    """Edges of seconds; of a short run 20 at least and of a long one about 400 bins."""
    span = end - start
    if span <= 0:
        return np.array([start, start + 1])
    width = min(max(1.0, span / 400), span / 20)
    begin = np.floor(start) if width >= 1 else start
    return np.asarray(begin + width * np.arange(np.ceil((end - begin) / width + 1e-9) + 1))


@drawing(3.5)
def servers(
    figure: Figure, series: Sequence[tuple[int, Mapping[str, tuple[Values, Values]]]], titles: Mapping[str, str]
) -> None:
    """The servers' own gauges over the run, one panel each; (target's number, gauge -> (seconds, values))."""
    shown = [gauge for gauge in titles if any(gauge in gauges for _, gauges in series)]
    figure.set_figheight(0.7 + 1.5 * len(shown))
    panels = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
    for axes, gauge in zip(panels, shown, strict=True):
        for target, gauges in series:
            if gauge in gauges:
                axes.step(*gauges[gauge], where="post", **stroke(target), linewidth=1.4)
        axes.set_title(titles[gauge])
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    panels[-1].set_xlabel("seconds from the run's start")


@drawing(3.5)
def phases(figure: Figure, accounts: Sequence[tuple[int, Sequence[Part]]], order: Sequence[str]) -> None:
    """Where the mean request's time went: a bar for each (target, account), up to the first token on the left, the
    whole on the right. Parts are told apart by hatching and shade of the target's own colour."""
    figure.set_figheight(1.5 + 0.42 * len(accounts))
    left, right = figure.subplots(1, 2)
    for axes, shown, title in ((left, order[:-1], "Up to the first token"), (right, order, "The whole request")):
        for row, (target, account) in enumerate(accounts):
            _bar(axes, row, target, account, shown, order)
        if not axes.patches:
            _empty(axes, "no answered request")
        axes.set_title(f"{title}: mean")
        axes.set_yticks(range(len(accounts)), [f"{row + 1}" for row in range(len(accounts))])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value) if value else "0"))
        axes.xaxis.set_major_locator(MaxNLocator(6))


HATCHES = ("", "////", "....", "", "xxxx", "++++", "\\\\\\\\", "", "")
SHADES = (0.15, 0.3, 0.45, 0.95, 0.6, 0.4, 0.7, 0.2, 0.55)


def _bar(
    axes: Axes, row: int, target: int, account: Sequence[Part], shown: Sequence[str], order: Sequence[str]
) -> None:
    start = 0.0
    for part in account:
        if part.phase not in shown or not part.mean:
            continue
        number = order.index(part.phase)
        colour = placeholder(target)
        axes.barh(row, part.mean, left=start, height=0.66, color=colour, alpha=SHADES[number], linewidth=0)
        axes.barh(row, part.mean, left=start, height=0.66, facecolor="none", edgecolor=colour, linewidth=0.8,
                  hatch=HATCHES[number])  # fmt: skip
        start += part.mean


@drawing(2.9)
def trace(figure: Figure, counts: Sequence[int], step_s: float, prompts: Values, outputs: Values) -> None:
    """What was asked: arrivals (`counts` of steps of the trace's own time), and the lengths of prompts and answers."""
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    rates = np.asarray(counts or [0], float) / step_s
    left.fill_between(np.arange(len(rates)) * step_s, rates, step="post", color=INK, alpha=0.35, linewidth=0)
    left.set_title("The trace: requests per second")
    left.set_xlabel("seconds of the trace")
    left.set_ylim(bottom=0)
    for values, style, label in ((prompts, "-", "prompt"), (outputs, "--", "output")):
        if not len(values):
            continue
        _shares(right, np.maximum(values, 1), len(values), color=INK, linestyle=style, label=label)
    right.set_xscale("log")
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    right.set_title("Tokens asked for")
    right.legend(frameon=False, loc="lower right")


@drawing(2.9)
def client(figure: Figure, lateness: Curves, lag: Curves) -> None:
    """How late requests left, and how late the client read what had come."""
    left, right = figure.subplots(1, 2)
    _cdf(left, lateness, "Lateness: sent after it was due", "no request was sent")
    _cdf(right, lag, "Client lag: read after it had arrived", "no answer was read")
    left.set_ylabel("share of requests")
