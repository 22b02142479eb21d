"""Figures as a person reads them: the one place where seconds become milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ms(seconds: float | None, unit: bool = False) -> str:
    """Three significant digits, in ms: 0.123, 4.57, 45.7, 457, 4,567."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}" + (" ms" if unit else "")


def quantile(row: Mapping[str, Any]) -> str:
    """A quantile of a summary: its figure, `unbounded`, or why there is none."""
    if not row["enough"]:
        return f"- (n={row['n']:,}, needs {row['needs']:,})" if row["n"] else "-"
    return "unbounded" if row["unbounded"] else ms(row["value"])


def interval(row: Mapping[str, Any]) -> str:
    """The 95 % interval, empty where there is none."""
    if not row["enough"] or row["low"] is None:
        return ""
    return f"{ms(row['low'])}–{'∞' if row['high'] is None else ms(row['high'])}"


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
