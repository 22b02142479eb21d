"""A trace in plain text (`trace info`: the figures of `describe`, a line of arrivals, histograms of lengths), and as a
picture, PNG, SVG or a self-contained HTML page (arrivals, gaps, lengths, prompt against output)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from traces.errors import InputError
from traces.statistics import Statistics
from traces.trace import NS_PER_S, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 60
POINTS = 5000  # of a scatter plot; more only blackens it
INK, SOFT = "#1f4e79", "#9db7d1"


def trace_text(trace: Trace, statistics: Statistics) -> str:
    """Lines of at most some 100 characters."""
    lines = [f"{trace.name}  {trace.source}".rstrip(), ""]
    lines += [f"{name:<15}{text}" for name, text in _facts(trace, statistics)]
    if timeline := statistics.timeline:
        counts = timeline.counts  # of 120 steps: two of them are one bar
        bars = spark([sum(counts[at : at + 2]) for at in range(0, len(counts), 2)])
        lines += ["", f"{'arrivals':<15}{bars}  a step is {duration(2 * timeline.step_s)}"]
    for column, name in (("prompt_tokens", "prompt"), ("output_tokens", "output")):
        values = trace.column(column)
        bars, low, high = _histogram(values)
        lines.append(f"{name:<15}{bars}  {low:,} to {high:,} tokens, log scale")
    lines += [f"{'note':<15}{name}: {value}" for name, value in trace.notes.items()]
    return "\n".join(lines) + "\n"


def spark(counts: Sequence[int]) -> str:
    """Counts as one line of bars; a count above 0 never looks like none."""
    top = max(max(counts, default=0), 1)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top)] for count in counts)


def _facts(trace: Trace, statistics: Statistics) -> Iterator[tuple[str, str]]:
    rate = f", {statistics.rate:.3g} a second" if statistics.rate else ""
    yield "requests", f"{statistics.requests:,} in {duration(statistics.span_s)}{rate}"
    if arrivals := statistics.arrivals:
        yield "gaps", f"CV {arrivals.cv:.2f} (Poisson 1), longest {duration(arrivals.longest_gap_s)}"
        spread = [f"{value:.3g} over {w} s" for w, value in arrivals.dispersion.items() if value is not None]
        if spread:
            yield "burstiness", "variance/mean of counts " + ", ".join(spread)
    for name, tokens in (("prompt", statistics.prompt_tokens), ("output", statistics.output_tokens)):
        if tokens:
            quantiles = f"p50 {tokens.p50:,.0f}   p90 {tokens.p90:,.0f}   p99 {tokens.p99:,.0f}"
            yield name, f"{quantiles}   max {tokens.max:,} tokens"
    if statistics.spearman is not None:
        yield "", f"rank correlation of prompt and output {statistics.spearman:+.2f}"
    if (sessions := statistics.sessions) and (turns := sessions.turns):
        think = f"; think time p50 {duration(sessions.think_ms.p50 / 1e3)}" if sessions.think_ms else ""
        yield "sessions", f"{sessions.count:,} with {turns.mean:.2f} turns on average, p99 {turns.p99:.0f}{think}"
    if prefix := statistics.prefix:
        size = f"{prefix.block_tokens} tokens" if prefix.block_tokens != "variable" else "variable size"
        hits = f"a perfect prefix cache would hit {prefix.hit_share:.1%} of prompt tokens"
        yield "prefixes", f"{prefix.blocks:,} blocks of {size}; {hits}"
    if trace.transforms:
        yield "shaped by", ", ".join(trace.transforms)


def _histogram(values: npt.NDArray[np.int64]) -> tuple[str, int, int]:
    low, high = int(values.min()), int(values.max())
    if low == high:
        return BLOCKS[-1] * WIDTH, low, high
    edges = np.unique(np.rint(np.geomspace(max(low, 0.5), high + 1, WIDTH + 1)))  # lengths are whole
    edges[0] = low
    return spark(np.histogram(values, edges)[0].tolist()), low, high


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{seconds * 1e3:.3g} ms"


def plot_trace(trace: Trace, statistics: Statistics, path: str) -> None:
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".svg", ".html"):
        raise InputError("unknown ending", where=path, remedy="end in .png, .svg or .html")
    figure = draw(trace, statistics)
    try:
        if ending == ".html":
            from .html import render

            figure.savefig(picture := io.StringIO(), format="svg")
            svg = Markup("<svg" + picture.getvalue().partition("<svg")[2])  # matplotlib escapes its texts
            Path(path).write_text(render("trace.html.j2", name=trace.name, text=trace_text(trace, statistics), svg=svg))
        else:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", where=path, remedy="check the path") from None


def draw(trace: Trace, statistics: Statistics) -> Figure:
    """A matplotlib Figure; no display is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle(f"{trace.name}: {len(trace):,} requests")
    (rate, lengths), (gaps, both) = figure.subplots(2, 2)
    rate.set(title="Arrivals", xlabel="seconds from the start", ylabel="requests/s")
    if (timeline := statistics.timeline) and statistics.rate:
        counts, step_s = np.array(timeline.counts), timeline.step_s
        rate.bar(np.arange(len(counts)) * step_s, counts / step_s, step_s, align="edge", color=SOFT)
        rate.axhline(statistics.rate, color=INK, linewidth=1)
    gaps.set(title="Gaps between arrivals", xlabel="seconds", ylabel="share of gaps", xscale="log")
    gaps_s = np.sort(np.diff(trace.column("due"))) / NS_PER_S
    if len(gaps_s) > 1 and gaps_s[-1] > 0:
        gaps.step(np.maximum(gaps_s, 1e-6), np.arange(1, len(gaps_s) + 1) / len(gaps_s), color=INK, label=trace.name)
        grid = np.geomspace(max(1e-6, float(gaps_s[gaps_s > 0][0])), gaps_s[-1], 200)
        gaps.plot(grid, 1 - np.exp(-grid / gaps_s.mean()), color=SOFT, linestyle="--", label="Poisson")
        gaps.legend()
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
