"""A trace as a picture, PNG, SVG or a self-contained HTML page: arrivals, gaps, lengths, prompt against output."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from traces.errors import InputError
from traces.statistics import Statistics
from traces.trace import NS_PER_S, Trace

from .trace_view import trace_text

POINTS = 5000  # of a scatter plot; more only blackens it
INK, SOFT = "#1f4e79", "#9db7d1"


def plot(trace: Trace, statistics: Statistics, path: str) -> None:
    """Writes the picture in the format of the path's ending."""
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".svg", ".html"):
        raise InputError("unknown ending", where=path, remedy="end in .png, .svg or .html")
    figure = draw(trace, statistics)
    try:
        if ending == ".html":
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg")
            Path(path).write_text(page(trace, statistics, drawn.getvalue()))
        else:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", where=path, remedy="check the path") from None


def draw(trace: Trace, statistics: Statistics) -> Any:
    """A matplotlib Figure; no display is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle(f"{trace.name}: {len(trace):,} requests")
    (rate, lengths), (gaps, both) = figure.subplots(2, 2)
    _rate(rate, statistics)
    _gaps(gaps, trace)
    for name, colour in (("prompt_tokens", INK), ("output_tokens", "#c05a2b")):
        ordered = np.sort(trace.column(name))
        lengths.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=colour, label=name.split("_")[0])
    lengths.set(title="Lengths", xlabel="tokens", ylabel="share of requests", xscale="symlog")
    lengths.legend()
    step = max(1, len(trace) // POINTS)
    prompt, output = trace.column("prompt_tokens")[::step], trace.column("output_tokens")[::step]
    both.scatter(prompt, output, s=4, alpha=0.4, color=INK, linewidths=0)
    both.set(title="Prompt and output", xlabel="prompt tokens", ylabel="output tokens", xscale="log", yscale="symlog")
    both.set_ylim(bottom=0)
    for axes in (rate, lengths, gaps, both):
        axes.grid(alpha=0.25)
    return figure


def _rate(axes: Any, statistics: Statistics) -> None:
    axes.set(title="Arrivals", xlabel="seconds from the start", ylabel="requests/s")
    if timeline := statistics.timeline:
        counts, step = np.array(timeline.counts), timeline.step_s
        axes.bar(np.arange(len(counts)) * step, counts / step, step, align="edge", color=SOFT)
        axes.axhline(statistics.rate, color=INK, linewidth=1)


def _gaps(axes: Any, trace: Trace) -> None:
    """Gaps against those of a Poisson process of the same rate."""
    axes.set(title="Gaps between arrivals", xlabel="seconds", ylabel="share of gaps", xscale="log")
    gaps = np.sort(np.diff(trace.column("due"))) / NS_PER_S
    if len(gaps) > 1 and gaps[-1] > 0:
        axes.step(np.maximum(gaps, 1e-6), np.arange(1, len(gaps) + 1) / len(gaps), color=INK, label=trace.name)
        grid = np.geomspace(max(1e-6, float(gaps[gaps > 0][0])), gaps[-1], 200)
        axes.plot(grid, 1 - np.exp(-grid / gaps.mean()), color=SOFT, linestyle="--", label="Poisson")
        axes.legend()


def page(trace: Trace, statistics: Statistics, svg: str) -> str:
    """One HTML file that needs nothing else."""
    name, text = html.escape(trace.name), html.escape(trace_text(trace, statistics))
    drawing = svg[svg.index("<svg") :]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        "<style>body{font:15px system-ui;max-width:72rem;margin:2rem auto;padding:0 1rem}pre{overflow-x:auto}"
        f"svg{{max-width:100%;height:auto}}</style><h1>{name}</h1><pre>{text}</pre>{drawing}</html>\n"
    )
