"""Figures as a person reads them: the one place where seconds become milliseconds."""

from __future__ import annotations

from math import ceil, floor, isfinite, isinf, isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis.quantiles import Quantile
    from .analysis.results import Counts

LONG = 9.9995  # seconds from which on they aren't called milliseconds


def ms(seconds: float | None, unit: bool = False) -> str:
    """Three significant digits, in ms, and in seconds from 10 s on: 0.123, 4.57, 45.7, 4,567, 12.3 s. A dash for None
    and nan."""
    if seconds is None or isnan(seconds):
        return "-"
    if isinf(seconds):
        return "unbounded"
    if abs(seconds) >= LONG:
        return f"{seconds:,.1f} s" if abs(seconds) < 99.95 else f"{seconds:,.0f} s"
    value = seconds * 1e3
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}" + (" ms" if unit else "")


def quantile(row: Quantile) -> str:
    """A quantile of a summary: its figure, `unbounded`, or a dash (`lacking` says why)."""
    return ms(row.value) if row.enough else "-"


def lacking(row: Quantile) -> str:
    """Why a quantile isn't printed, or has no interval: `n=41 < 299`, the samples there are and those it needs; `worth
    61 < 507`, the independent requests that they are worth; `drifting`."""
    if not row.enough:
        return f"n={row.n:,} < {row.needs:,}"
    if row.effective < row.effective_needed:
        return f"worth {floor(row.effective):,} < {ceil(row.effective_needed):,}"
    return "drifting" if row.drifting else ""


def duration(row: Quantile) -> str:
    """The same with its unit, for a sentence."""
    if row.enough and isfinite(row.value):
        return ms(row.value, unit=True)
    return f"{quantile(row)} ({lacking(row)})".removesuffix(" ()")


def interval(row: Quantile) -> str:
    """The 95 % interval, empty where there is none, or no steady figure that it could hold."""
    return span(row.low, row.high) if isfinite(row.low) and not row.drifting else ""


def span(low: float, high: float, unit: bool = False) -> str:
    """Two durations, their unit once where it is the same: 30.8–35.3, 10.2–11.2 s, 548 ms–12.0 s, 164–∞."""
    if isinf(high):
        return f"{ms(low, unit)}–∞"
    if (low < LONG) != (high < LONG):
        return f"{ms(low, unit=True)}–{ms(high)}"
    return f"{ms(low).partition(' ')[0]}–{ms(high, unit)}"


def share(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if 0 < abs(value) < 0.1 else f"{value:.1%}"


def rate(value: float | None) -> str:
    return (
        "-" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    )


def factor(value: float) -> str:
    return f"{value:,.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 1.95 else f"{value:.2f}x"


def label(q: float) -> str:
    return f"p{q * 100:g}"


def failures(counts: Counts) -> str:
    """Those refused for their rate apart from those that failed: `3 + 5 refused`."""
    refused = counts.outcomes.get("rate_limited", 0)
    others = counts.failed - refused
    return " + ".join([f"{others:,}"] * bool(others or not refused) + [f"{refused:,} refused"] * bool(refused))
