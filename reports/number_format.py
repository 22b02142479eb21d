"""Figures as a person reads them: the one place where seconds become milliseconds. A dash stands for None."""

from __future__ import annotations

from math import floor, inf, isinf, isnan, log10

LONG = 9.9995  # seconds from which on they aren't called milliseconds


def ms(seconds: float | None, unit: bool = False) -> str:
    """Three significant digits, in ms, and in seconds from 10 s on: 0.123, 4.57, 45.7, 4,567, 12.3 s. A dash for nan
    too."""
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
    return "∞" if value == inf else f"{value:z.{2 if 0.00005 <= abs(value) < 0.1 else 1}%}"


def rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def dollars(value: float | None) -> str:
    """Three significant digits below $100: $0.000214, $0.0457, $2.10, $31.4, $1,234."""
    if value is None:
        return "-"
    if not value:
        return "$0"
    digits = max(0, 2 - floor(log10(abs(value)))) if abs(value) < 99.95 else 0
    return f"${value:,.{digits}f}"


def factor(value: float) -> str:
    return f"{value:,.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 1.95 else f"{value:.2f}x"


def label(q: float) -> str:
    return f"p{q * 100:g}"


def period(seconds: float) -> str:
    """`95 s`, `12 minutes`, `3.5 hours`."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} hours"
