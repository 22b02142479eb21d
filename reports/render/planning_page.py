"""A grid of simulations, to be read before any hardware is bought: planning.json, point by point with what holds of its
targets whatever the load, and planning.html, one self-contained page, no script. Seconds, and rates a second.

Every figure was computed by the engine; this keeps and draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import orjson
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich.console import Console

from targets.simulated.analysis import Crossover, Hardware, Hybrid
from traces.files import write_whole

from .. import number_format
from .html import render
from .plots import GRID, Numbers, Plot, drawing, log_axis, stroke
from .text import grid, widen

FILE = "planning.html"
METRICS = {"ttft": "Prefill: TTFT", "tpot": "Decode: TPOT"}
QUANTILES: dict[str, dict[str, Any]] = {"p50": {}, "p99": {"markerfacecolor": "none", "alpha": 0.55}}  # and their looks
LINES = 8  # of one target in a plot; a larger grid is read from its table
WIDE = 150  # columns of a file or a pipe
SHOWN = 400  # rows of the table; planning.json has all
Value = float | str  # of an axis


@dataclass(frozen=True)
class Quantiles:
    """Failed requests rank as infinitely slow: inf where they leave a quantile unbounded; nan where nothing counted."""

    p50: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One target at one combination of the axes' values. Means are of the answered requests; None without one."""

    target: str
    values: Mapping[str, Value]
    rate: float  # requests offered a second
    requests: int  # of them counted
    failed: int  # of those without an answer
    goodput: float | None  # share of the counted that met every objective; without objectives, that were answered
    units: int  # GPUs and racks
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    queue_mean: float | None
    prefill_mean: float | None
    transfer_mean: float | None
    decode_mean: float | None
    tokens_per_s: float
    in_flight: float  # requests in the endpoint, on average (Little's law)
    dollars_per_mtok: float | None
    dollars_per_good_mtok: float | None
    joules_per_token: float | None
    slo: str | None  # "met", "missed" or "no verdict" by the gates that concern the target; None without one
    gates: list[dict[str, object]]  # their verdicts, as summary.json has them


@dataclass(frozen=True, kw_only=True)
class Planning:
    """A whole grid, in a folder of its own. `axes`: name -> values; `goodput` and `slo` as the user gave them."""

    folder: Path
    model: str
    trace: str
    goodput: list[str]
    slo: list[str]
    axes: Mapping[str, list[Value]]
    points: list[Point]
    targets: list[Hardware]
    crossovers: list[Crossover]
    hybrids: list[Hybrid]

    def save(self) -> None:
        """Writes planning.json, with null for what is unbounded or undefined."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "folder"}
        write_whole(self.folder / "planning.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def write(planning: Planning) -> Path:
    numbers = {target.name: number for number, target in enumerate(planning.targets)}
    page = render(
        "planning.html.j2", planning=planning, numbers=numbers, figures=list(_figures(planning, numbers)),
        points=[(point, _latencies(point)) for point in planning.points[:SHOWN]],
        hidden=max(0, len(planning.points) - SHOWN),
        ratios=[(t.name, ratio(t.capacity)) for t in planning.targets if len(t.capacity) == 2],
    )  # fmt: skip
    path = planning.folder / FILE
    write_whole(path, page.encode())
    return path


def ratio(capacity: Sequence[float]) -> str:
    """Prefill : decode replicas with which both pools are full at the same rate, in small whole numbers."""
    prefill, decode = capacity
    best = min(
        ((p, d) for p in range(1, 17) for d in range(1, 17)),
        key=lambda pair: abs(np.log(pair[0] * prefill / (pair[1] * decode))) + 0.01 * sum(pair),
    )
    return f"{best[0]}:{best[1]}"


def print_points(planning: Planning, console: Console) -> None:
    widen(console, WIDE)
    headings = ["target", *planning.axes, "req/s", *(f"{metric.upper()} {q}" for metric in METRICS for q in QUANTILES),
                "in flight", "failed", "goodput", "$/Mtok", *(["SLO"] if planning.slo else [])]  # fmt: skip
    rows = []
    for point in planning.points[:SHOWN]:
        cost = point.dollars_per_mtok
        values = (point.values.get(key, "-") for key in planning.axes)
        rows.append([
            point.target, *(value if isinstance(value, str) else f"{value:g}" for value in values),
            number_format.rate(point.rate), *_latencies(point), number_format.rate(point.in_flight), str(point.failed),
            number_format.share(point.goodput), "-" if cost is None else f"{cost:.2f}",
            *([point.slo or "-"] if planning.slo else []),
        ])  # fmt: skip
    console.print(grid(headings, rows, headings[1:], "TTFT and TPOT in ms, cost in $ per million output tokens"))
    for pair in planning.crossovers:
        where = f"from batch {pair.batch} on" if pair.batch else "at no batch up to 1,024"
        line = f"A replica of {pair.gpu} decodes more tokens a second than a rack of {pair.rack} {where}."
        console.print(line, markup=False, highlight=False)


def _latencies(point: Point) -> list[str]:
    return [number_format.ms(_at(point, metric, q)) for metric in METRICS for q in QUANTILES]


def _at(point: Point, metric: str, q: str) -> float:
    return float(getattr(getattr(point, metric), q))


def _figures(planning: Planning, numbers: Numbers) -> Iterator[tuple[str, Plot]]:
    for axis, values in planning.axes.items():
        if len(values) > 1:
            yield f"TTFT and TPOT against {axis}", _against(f"against {axis}", planning, axis, numbers)
    if any(target.decode for target in planning.targets):
        yield "Where batching overtakes", _decode("decode throughput against batch", planning, numbers)
    for hybrid in planning.hybrids:
        yield "What the hybrid gains", _gain(f"gain of hybrid {hybrid.name}", hybrid)
    if any(target.batch_cost for target in planning.targets):
        yield "The price of speed", _price("cost against latency by batch cap", planning, numbers)


@drawing(3.6)
def _against(figure: Figure, planning: Planning, axis: str, numbers: Numbers) -> str:
    words = isinstance(planning.axes[axis][0], str)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for target, lines in _lines(planning, axis).items():
            for points in lines[:LINES]:
                x = [point.values[axis] for point in points]
                for q, look in QUANTILES.items():
                    y = np.array([_at(point, metric, q) for point in points]) * 1e3
                    y[~np.isfinite(y)] = np.nan
                    axes.plot(x, y, marker="o", markersize=4.5, **stroke(numbers[target]), **look)
        axes.set(title=title, xlabel=axis, ylabel="ms")
        log_axis(axes, "y")
        if len(planning.axes[axis]) > 2 and not words:
            log_axis(axes, "x")
    return f"p50, and p99 pale with open points; a line for each combination of the other axes (at most {LINES})."


def _lines(planning: Planning, axis: str) -> dict[str, list[list[Point]]]:
    """By target, the points of each combination of the other axes, along this one."""
    lines: dict[str, dict[tuple[tuple[str, Value], ...], list[Point]]] = {}
    for point in planning.points:
        if axis in point.values:
            others = tuple((key, value) for key, value in point.values.items() if key != axis)
            lines.setdefault(point.target, {}).setdefault(others, []).append(point)
    return {target: list(groups.values()) for target, groups in lines.items()}


@drawing(3.6)
def _decode(figure: Figure, planning: Planning, numbers: Numbers) -> str:
    axes = figure.subplots()
    for target in planning.targets:
        if target.decode:
            axes.plot(*np.array(target.decode).T, **stroke(numbers[target.name]), marker=".")
    for pair in planning.crossovers:
        axes.axhline(pair.rack_tokens_per_s, **stroke(numbers[pair.rack]))
        if pair.batch:
            axes.axvline(pair.batch, color=GRID)
            axes.text(pair.batch, pair.rack_tokens_per_s, f" batch {pair.batch}", va="bottom")
    axes.set(xlabel="batch", ylabel="tokens a second", title="Decode throughput")
    log_axis(axes, "x")
    log_axis(axes, "y")
    return "Tokens a second of one replica by batch size; level lines: one rack, which doesn't batch."


@drawing(4.2)
def _gain(figure: Figure, hybrid: Hybrid) -> str:
    gain = np.array(hybrid.gain)
    axes = figure.subplots()
    axes.grid(visible=False)
    limit = max(2.0, float(gain.max()))
    norm = mpl.colors.LogNorm(1 / limit, limit)
    image = axes.imshow(gain, origin="lower", aspect="auto", cmap="PuOr", norm=norm)
    axes.set_xticks(range(len(hybrid.outputs)), [f"{n:,}" for n in hybrid.outputs])
    axes.set_yticks(range(len(hybrid.bandwidths)), [f"{b:g}" for b in hybrid.bandwidths])
    for (row, column), times in np.ndenumerate(gain):
        ink = "#ffffff" if abs(np.log(times)) > 0.6 * np.log(limit) else "#1b1f24"
        axes.text(column, row, f"{times:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    axes.set(xlabel="output tokens", ylabel="link, GB/s", title="Times as fast as without the hand-over")
    bar = figure.colorbar(image, ax=axes)
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return (
        f"End-to-end time of {' or '.join(hybrid.alone)} alone, whichever is faster, over that of "
        f"{hybrid.name}, one request of {hybrid.prompt:,} prompt tokens: above 1 the hybrid pays."
    )


@drawing(3.8)
def _price(figure: Figure, planning: Planning, numbers: Numbers) -> str:
    axes = figure.subplots()
    for target in planning.targets:
        if target.batch_cost:
            batches, tpot, cost = np.array(target.batch_cost).T
            axes.plot(tpot * 1e3, cost, **stroke(numbers[target.name]), marker=".")
            for batch, x, y in zip(batches, tpot, cost, strict=True):
                if batch in (1, 4, 16, 64, 256):
                    axes.annotate(f" {batch:.0f}", (x * 1e3, y), va="bottom", fontsize=8.5)
            if target.floor:
                axes.axvline(target.floor * 1e3, **stroke(numbers[target.name]), alpha=0.55)
    axes.set(xlabel="TPOT, ms (upright: the floor, weights over bandwidth)", ylabel="$ a million tokens")
    axes.set(title="Cost against latency")
    log_axis(axes, "y")
    return "A replica kept full, by its batch cap (the figures at the points): premium tiers sell small batches."
