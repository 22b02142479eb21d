"""The plots of our pages: each function draws on a figure and returns its caption; `drawing` makes inline SVG of it.

matplotlib draws with placeholder colours (INK, GRID, BAD and one for each target), and `_svg` replaces them with
variables of the style sheet: one plot is legible on a light page, on a dark one and on paper, and a target has the same
colour everywhere, which its number gives (`numbers`: name -> number). Text stays text. No plot holds the name of a
target or a load step; names are in the page's legend.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any, Concatenate, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from traces.request import NS_PER_S

from ..analysis import leaders, phases, samples, steadiness
from ..analysis.gates import Verdict
from ..analysis.phases import Series
from ..analysis.quantiles import Quantile, Values
from ..analysis.results import Result
from ..analysis.samples import Slice
from ..analysis.summary import Summary
from ..store.durations import HEADLINES
from ..store.run_folder import Run

INK, GRID, BAD = "#0a0b01", "#0a0b02", "#0a0b03"
COLOURS = 8  # CSS variables --t0 ... --t7; further targets begin again, with other line styles
LINES: Any = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))  # so that curves that coincide are both seen
MARKERS = "osD^vPX*"
STYLE: Any = {
    "svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none", "font.size": 10.5,
    "text.color": INK, "text.parse_math": False, "xtick.color": INK, "ytick.color": INK, "lines.linewidth": 1.8,
    "axes.titlecolor": INK, "axes.titlelocation": "left", "axes.titlesize": 11.5, "axes.titleweight": "bold",
    "axes.labelcolor": INK, "axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6,
}  # fmt: skip
POINTS = 300  # of a curve
FEW = "no or too few answered requests"
Numbers = Mapping[str, int]
Data = ParamSpec("Data")
Draw = Callable[Concatenate[Figure, Data], str]


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg`: an element that needs no escaping; `id`: its name in the page, where ids are unique."""

    id: str
    svg: Markup
    caption: str


def drawing(height: float) -> Callable[[Draw[Data]], Callable[Concatenate[str, Data], Plot]]:
    """Makes what draws on a figure of that height (inches) a function of the plot's name in the page and the data."""

    def decorate(draw: Draw[Data]) -> Callable[Concatenate[str, Data], Plot]:
        def drawn(name: str, /, *data: Data.args, **more: Data.kwargs) -> Plot:
            with mpl.rc_context(STYLE):
                figure = Figure(figsize=(11, height), layout="constrained")
                caption = draw(figure, *data, **more)
                name = re.sub(r"\W+", "-", name)
                return Plot(name, Markup(_svg(figure, name)), caption)

        return drawn

    return decorate


def _svg(figure: Figure, name: str) -> str:
    """As an <svg> element, as wide as the page, in its colours and typeface. Ids are in order of appearance:
    matplotlib's hold addresses of objects, and so change from drawing to drawing."""
    out, ids = io.StringIO(), dict[str, str]()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=no_metadata, transparent=True)
    text = out.getvalue()
    text = re.sub(r' (?:width|height)="[^"]*"', "", text[text.index("<svg") :], count=2)
    text = re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + ids.setdefault(m[2], f"{name}-{len(ids)}"), text)
    text = re.sub(r"font: ([\d.]+px|[\w ]*?[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    for colour, variable in ((INK, "--ink"), (GRID, "--grid"), (BAD, "--bad")):
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"#0a0c(\d\d)", lambda m: f"var(--t{int(m[1], 16)})", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{name.replace("-", " ")}"', 1)


def colour(target: int) -> str:
    return f"#0a0c{target % COLOURS:02x}"


def stroke(target: int) -> dict[str, Any]:
    return {"color": colour(target), "linestyle": LINES[target % len(LINES)]}


def log_axis(axes: Axes, which: Literal["x", "y"], label: Callable[[float], str] = "{:,.10g}".format) -> None:
    """Logarithmic, with as many round ticks as its span has room for."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "y" and 0 < (low := axes.dataLim.y0) <= axes.dataLim.y1 < 1.5 * low:
        axes.set_ylim(low / 2, 2 * low)  # or a level line would be all there is to see
    low, high = axis.get_view_interval()
    span = high / max(low, 1e-12)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if span < 8 else (1, 2, 5) if span < 500 else (1,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(lambda value, _: label(value))
    axis.set_minor_formatter(NullFormatter())


def seconds(value: float) -> str:
    """An axis label: 200 us, 5 ms, 2 s."""
    if value >= 0.9995:
        return f"{value:g} s"
    return f"{value * 1e3:g} ms" if value >= 0.9995e-3 else f"{value * 1e6:g} µs"


def _log_seconds(axes: Axes, which: Literal["x", "y"], empty: str) -> None:
    """A logarithmic axis needs something positive to draw."""
    high = axes.dataLim.x1 if which == "x" else axes.dataLim.y1
    if isfinite(high) and high > 0:
        log_axis(axes, which, seconds)
    else:
        axes.set(**{f"{which}ticks": []})
        _empty(axes, empty)


def _red_line(axes: Axes, x: float, text: str) -> None:
    axes.axvline(x, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(text, (x, 0.02), xycoords=("data", "axes fraction"), color=BAD,
                  xytext=(-4, 0), textcoords="offset points", ha="right", fontsize=9.5)  # fmt: skip


def _empty(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.5, 0.6), xycoords="axes fraction", ha="center", color=INK)


@drawing(3.5)
def cdfs(figure: Figure, summary: Summary, step: str, numbers: Numbers, verdicts: Sequence[Verdict]) -> str:
    """TTFT and TPOT side by side: the share of requests that were at most that slow, and what the gates allow. Failures
    never arrive at 1."""
    of_step = [sample for sample in summary.samples.values() if sample.step == step]
    left, right = figure.subplots(1, 2)
    for axes, metric, title in ((left, "ttft", "Prefill: TTFT"), (right, "tpot", "Decode: TPOT")):
        of_all = [verdict.gate for verdict in verdicts if verdict.step == step and not verdict.gate.where]
        gates = [gate for gate in of_all if gate.metric == metric]
        curves = [(numbers[s.target], s.values[metric], s.failed) for s in of_step]
        _cdf(axes, title, curves, "no answered request", {(gate.statistic, gate.limit) for gate in gates})
    left.set_ylabel("share of requests")
    return (
        f"Cumulative shares{', ' + step if step else ''}; logarithmic time. Dotted: p50 and p99; red: limits of gates. "
        "A curve that ends below 100 % belongs to an endpoint that failed some."
    )


@drawing(2.9)
def client(figure: Figure, summary: Summary, numbers: Numbers) -> str:
    """How late requests left, and how late the client read what had come; all steps of a target together."""
    left, right = figure.subplots(1, 2)
    for axes, metric, title, empty in (
        (left, "lateness", "Lateness: sent after it was due", "no request was sent"),
        (right, "client_lag", "Client lag: read after it had arrived", "no answer was read"),
    ):
        pooled: dict[int, list[Values]] = {}
        for sample in summary.samples.values():
            pooled.setdefault(numbers[sample.target], []).append(sample.values[metric])
        curves = [(number, np.sort(np.concatenate(values)), 0) for number, values in pooled.items()]
        _cdf(axes, title, curves, empty)
    left.set_ylabel("share of requests")
    return "The client's own part, all counted requests."


Curve = tuple[int, Values, int]  # a target's number, its sorted seconds, and how many requests failed
Limit = tuple[str, float]  # a gate's statistic and seconds


def _cdf(axes: Axes, title: str, curves: Iterable[Curve], empty: str, limits: Iterable[Limit] = ()) -> None:
    for target, values, failed in curves:
        _shares(axes, np.maximum(values, 1e-6), len(values) + failed, **stroke(target))
    for statistic, limit in limits if axes.lines else ():
        _red_line(axes, limit, f"{statistic} {seconds(limit)}")
    for level in (0.5, 0.99):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (2, 3)))
    axes.set(title=title, ylim=(0, 1.02), yticks=[0, 0.25, 0.5, 0.75, 0.99])
    axes.yaxis.set_major_formatter("{x:.0%}")
    _log_seconds(axes, "x", empty)


def _shares(axes: Axes, values: Values, whole: int, **style: Any) -> None:
    """The share of `whole` that is at most so large, for sorted values."""
    if len(values):
        chosen = np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))
        axes.step(values[chosen], (chosen + 1) / whole, where="post", **style)


@drawing(3.5)
def in_flight(figure: Figure, rows: pd.DataFrame, numbers: Numbers) -> str:
    tables = {
        numbers[str(target)]: samples.slices(part, "in_flight")
        for target, part in rows[rows["counted"]].groupby("target", observed=True)
    }
    for axes, metric in _panels(figure):
        for target, slices in tables.items():
            _sliced(axes, slices, metric, target)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("in flight at send")
        _log_seconds(axes, "y", FEW)
    return (
        "Medians with 95 % intervals against the target's own requests in flight at send, all load steps together: "
        "how an endpoint fares as concurrency rises."
    )


def _panels(figure: Figure) -> Iterable[tuple[Axes, str]]:
    for axes, (metric, phase) in zip(figure.subplots(1, 3), HEADLINES.items(), strict=True):
        axes.set_title(f"{phase.capitalize()}: {metric.upper()} p50")
        yield axes, metric


def bounded(median: Quantile) -> bool:
    """Has it a figure, of a sample that bounds it?"""
    return median.enough and isfinite(median.value)


def _sliced(axes: Axes, slices: Sequence[Slice], metric: str, target: int) -> None:
    """Points only where the sample bounds the median."""
    edges = [*samples.SLICES["in_flight"], 2 * samples.SLICES["in_flight"][-1]]
    middle = {low: (low * (end - 1)) ** 0.5 for low, end in pairwise(edges)}
    medians = [(middle[part.low], part.p50(metric)) for part in slices]
    points = [
        (x, p50.value, p50.low, p50.high if isfinite(p50.high) else p50.value)
        for x, p50 in medians
        if bounded(p50) and p50.value
    ]
    if points:
        x, y, low, high = np.array(points).T
        axes.fill_between(x, low, high, color=colour(target), alpha=0.18, linewidth=0)
        axes.plot(x, y, marker=MARKERS[target % len(MARKERS)], markersize=4.5, **stroke(target))


@drawing(3.2)
def by_step(figure: Figure, summary: Summary, numbers: Numbers) -> str:
    steps = summary.steps
    for axes, metric in _panels(figure):
        for target, number in numbers.items():
            medians = [(steps.index(r.step), r.quantile(metric, 0.5)) for r in summary.results if r.target == target]
            points = [(x, median.value) for x, median in medians if bounded(median)]
            axes.plot(*np.array(points).reshape(-1, 2).T, marker=MARKERS[number % len(MARKERS)], **stroke(number))
        for flip in leaders.flips(leaders.leads(summary, metric)):
            _red_line(axes, steps.index(flip.step) - 0.5, "lead lost")
        axes.set_xticks(range(len(steps)), [f"step {number + 1}" for number in range(len(steps))])
        axes.set_xlim(-0.3, len(steps) - 0.7)
        _log_seconds(axes, "y", FEW)
    loads = [", ".join(part for part in (step, summary.of_step(step)[0].load) if part) for step in steps]
    named = "; ".join(f"step {number + 1}: {load}" for number, load in enumerate(loads))
    return f"Medians against load ({named}). A red line: between these steps the lead changes hands."


@drawing(5.2)
def timeline(figure: Figure, rows: pd.DataFrame, numbers: Numbers, windows: Iterable[tuple[float, float]]) -> str:
    arrivals, open_, failures = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.4, 0.8])
    edges = bins(float(rows["due"].min()) / NS_PER_S, float(rows[["due", "done"]].max().max()) / NS_PER_S)
    width = edges[1] - edges[0]
    for target, part in rows.groupby("target", observed=True):
        look, failed = stroke(numbers[str(target)]), part.loc[~part["ok"]]
        changes = np.unique(part[["due", "done"]].to_numpy(np.float64))  # nan where a request was never over
        at = edges * NS_PER_S if len(part) > POINTS else changes[np.isfinite(changes)]
        open_.step(at / NS_PER_S, steadiness.backlog(part, at), where="post", **look, linewidth=1.4)
        for axes, instants in ((arrivals, part["due"]), (failures, failed["done"].fillna(failed["due"]))):
            counts, _ = np.histogram(instants / NS_PER_S, edges)
            axes.stairs(counts / width, edges, baseline=None, **look, linewidth=1.2)
    titles = ("Arrivals per second (due)", "Due and not over", "Failures per second")
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set(title=title, ylim=(0, max(1.0, axes.get_ylim()[1])))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for begin, finish in windows:
            axes.axvspan(begin / NS_PER_S, finish / NS_PER_S, color=GRID, alpha=0.25, linewidth=0)
    failures.set_xlabel("seconds from the run's start; shaded: the windows that count")
    return "Over the whole run, warm-up included."


def bins(start: float, end: float) -> Values:
    """Edges of seconds; of a short run 20 at least and of a long one about 400 bins."""
    span = end - start
    if span <= 0:
        return np.array([start, start + 1])
    width = min(max(1.0, span / 400), span / 20)
    begin = np.floor(start) if width >= 1 else start
    return np.asarray(begin + width * np.arange(np.ceil((end - begin) / width + 1e-9) + 1))


@drawing(3.5)
def servers(figure: Figure, run: Run, of_urls: Mapping[str, Series], numbers: Numbers) -> str:
    shown = [gauge for gauge in phases.GAUGES if any(gauge in gauges for gauges in of_urls.values())]
    figure.set_figheight(0.7 + 1.5 * len(shown))
    panels = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
    for axes, gauge in zip(panels, shown, strict=True):
        for url, gauges in of_urls.items():
            if gauge in gauges:
                number = numbers.get(phases.owner(run.facts.targets, url), 0)
                axes.step(*gauges[gauge], where="post", **stroke(number), linewidth=1.4)
        axes.set(title=phases.GAUGES[gauge], ylim=(0, max(1.0, axes.get_ylim()[1])))
    panels[-1].set_xlabel("seconds from the run's start")
    return "Read from the servers' metrics every second, a line a URL in its target's colour."


# Phases are told apart by shade and hatching of the target's own colour.
SHADES = dict(zip(phases.ALL, (0.15, 0.3, 0.45, 0.95, 0.6, 0.4, 0.7, 0.2, 0.55), strict=True))
HATCHES = dict(zip(phases.ALL, ("", "////", "....", "", "xxxx", "++++", "\\\\\\\\", "", ""), strict=True))


@drawing(3.5)
def accounts(figure: Figure, results: Sequence[Result], numbers: Numbers) -> str:
    figure.set_figheight(1.5 + 0.42 * len(results))
    left, right = figure.subplots(1, 2)
    for axes, shown, title in (
        (left, phases.ALL[:-1], "Up to the first token"),
        (right, phases.ALL, "The whole request"),
    ):
        for row, result in enumerate(results):
            start, ink = 0.0, colour(numbers[result.target])
            for part in result.phases:
                if part.mean and part.phase in shown:
                    place: Any = {"y": row, "width": part.mean, "left": start, "height": 0.66}
                    axes.barh(**place, color=ink, alpha=SHADES[part.phase], linewidth=0)
                    axes.barh(**place, fc="none", ec=ink, linewidth=0.8, hatch=HATCHES[part.phase])
                    start += part.mean
        if not axes.patches:
            _empty(axes, "no answered request")
        axes.set_title(f"{title}: mean")
        axes.set_yticks(range(len(results)), [f"{row + 1}" for row in range(len(results))])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: seconds(value) if value else "0")
        axes.xaxis.set_major_locator(MaxNLocator(6))
    return (
        "Bars are numbered as the rows above; from left to right the phases in the order of the columns. Palest: not "
        "attributed, and the client's own; dotted: queue; solid: prefill; crossed: KV transfer and hand-over."
    )


@drawing(2.9)
def trace(figure: Figure, run: Run) -> str:
    """What was asked: arrivals in the trace's own time, and the lengths of prompts and answers, of one target's rows:
    the same requests go to all."""
    timeline = run.facts.trace.profile.timeline if run.facts.trace else None
    rows = run.rows[run.rows["target"] == run.rows["target"].iloc[0]]
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    counts, step_s = (timeline.counts, timeline.step_s) if timeline else ([0], 1.0)
    rates = np.array(counts, float) / step_s
    left.fill_between(np.arange(len(rates)) * step_s, rates, step="post", color=INK, alpha=0.35, linewidth=0)
    left.set(title="The trace: requests per second", xlabel="seconds of the trace")
    left.set_ylim(bottom=0)
    for label, style in (("prompt", "-"), ("output", "--")):
        tokens = np.sort(rows[f"{label}_tokens"].to_numpy(np.float64))
        _shares(right, np.maximum(tokens, 1), len(tokens), color=INK, linestyle=style, label=label)
    right.set_title("Tokens asked for")
    log_axis(right, "x")
    right.yaxis.set_major_formatter("{x:.0%}")
    right.legend(frameon=False, loc="lower right")
    return "The requests as planned, before any server saw them."
