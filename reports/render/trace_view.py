"""A trace in plain text: `trace info`. The figures of `describe`, with a line of arrivals and histograms of lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from traces.statistics import Spread, Statistics
from traces.trace import Trace

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 60


def trace_text(trace: Trace, statistics: Statistics) -> str:
    """Lines of at most some 100 characters."""
    lines = [f"{trace.name}  {trace.source}".rstrip(), ""]
    lines += [f"{name:<15}{text}" for name, text in _facts(trace, statistics)]
    if timeline := statistics.timeline:
        bars, step = spark(_shrunk(timeline.counts)), duration(2 * timeline.step_s)
        lines += ["", f"{'arrivals':<15}{bars}  a step is {step}"]
    for column, name in (("prompt_tokens", "prompt"), ("output_tokens", "output")):
        values = trace.column(column)
        bars, low, high = _histogram(values)
        lines.append(f"{name:<15}{bars}  {low:,} to {high:,} tokens, log scale")
    lines += [f"{'note':<15}{name}: {value}" for name, value in trace.notes.items()]
    return "\n".join(lines) + "\n"


def spark(counts: Any) -> str:
    """Counts as one line of bars; a count above 0 never looks like none."""
    top = max(max(counts, default=0), 1)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top)] for count in counts)


def _facts(trace: Trace, statistics: Statistics) -> list[tuple[str, str]]:
    facts = [("requests", f"{statistics.requests:,} in {duration(statistics.span_s)}" + _rate(statistics.rate))]
    if arrivals := statistics.arrivals:
        facts.append(("gaps", f"CV {arrivals.cv:.2f} (Poisson 1), longest {duration(arrivals.longest_gap_s)}"))
        spread = [f"{value:.3g} over {w} s" for w, value in arrivals.dispersion.items() if value is not None]
        facts += [("burstiness", "variance/mean of counts " + ", ".join(spread))] if spread else []
    for name, lengths in (("prompt", statistics.prompt_tokens), ("output", statistics.output_tokens)):
        facts += [(name, _lengths(lengths))] if lengths else []
    if statistics.spearman is not None:
        facts.append(("", f"rank correlation of prompt and output {statistics.spearman:+.2f}"))
    if (sessions := statistics.sessions) and (turns := sessions.turns):
        text = f"{sessions.count:,} with {turns.mean:.2f} turns on average, p99 {turns.p99:.0f}"
        think = f"; think time p50 {duration(sessions.think_ms.p50 / 1e3)}" if sessions.think_ms else ""
        facts.append(("sessions", text + think))
    if prefix := statistics.prefix:
        size = f"{prefix.block_tokens} tokens" if prefix.block_tokens != "variable" else "variable size"
        text = f"{prefix.blocks:,} blocks of {size}; a perfect prefix cache would hit {prefix.hit_share:.1%}"
        facts.append(("prefixes", text + " of prompt tokens"))
    if trace.transforms:
        facts.append(("shaped by", ", ".join(trace.transforms)))
    return facts


def _rate(rate: float | None) -> str:
    return f", {rate:.3g} a second" if rate else ""


def _lengths(tokens: Spread) -> str:
    return f"p50 {tokens.p50:,.0f}   p90 {tokens.p90:,.0f}   p99 {tokens.p99:,.0f}   max {tokens.max:,} tokens"


def _histogram(values: Any) -> tuple[str, int, int]:
    low, high = int(values.min()), int(values.max())
    if low == high:
        return BLOCKS[-1] * WIDTH, low, high
    edges = np.unique(np.rint(np.geomspace(max(low, 0.5), high + 1, WIDTH + 1)))  # lengths are whole
    edges[0] = low
    return spark(np.histogram(values, edges)[0].tolist()), low, high


def _shrunk(counts: list[int]) -> list[int]:
    """Two steps in one: a timeline has 120."""
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{seconds * 1e3:.3g} ms"
