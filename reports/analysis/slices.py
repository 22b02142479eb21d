"""Figures by slice: in-flight at send, prompt length, output length. Marginal, never crossed: cells would be empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from . import quantiles
from .quantiles import Quantile

# Lower edges of the buckets; the last is open.
SLICES: dict[str, tuple[int, ...]] = {
    "in_flight": (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025),
    "prompt_tokens": (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072),
    "output_count": (0, 16, 64, 128, 256, 512, 1024, 2048, 4096),
}
METRICS = ("ttft", "ttft_from_due", "tpot", "e2e")


P50_AND_P99 = (0.5, 0.99)


@dataclass(frozen=True, slots=True)
class Slice:
    """The requests of one bucket, from `low` on; p50 and p99 of each metric (s), failures as in all quantiles."""

    bucket: str
    low: int
    n: int
    failed: int
    ttft: tuple[Quantile, ...]
    ttft_from_due: tuple[Quantile, ...]
    tpot: tuple[Quantile, ...]
    e2e: tuple[Quantile, ...]

    def p50(self, metric: str) -> Quantile:
        return cast("tuple[Quantile, ...]", getattr(self, metric))[0]


def bucket(values: pd.Series[float], name: str) -> pd.Series[float]:
    """The number of each value's bucket; nan stays nan."""
    edges = np.array(SLICES[name], np.float64)
    numbers = pd.Series(np.searchsorted(edges, values.to_numpy(np.float64), side="right") - 1.0, index=values.index)
    return numbers.where(values.notna())


def label(name: str, number: int) -> str:
    """`3-4`, `2`, `1025+`."""
    edges = SLICES[name]
    low = edges[number]
    if number + 1 == len(edges):
        return f"{low:,}+"
    high = edges[number + 1] - 1
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def table(counted: pd.DataFrame, name: str) -> list[Slice]:
    """One slice for each bucket that has requests.

    Output length is what was given, so a failed request has none: that table shows answered requests only.
    """
    rows = counted[counted["ok"]] if name == "output_count" else counted
    return [_slice(part, name, int(number)) for number, part in rows.groupby(bucket(rows[name], name))]


def _slice(part: pd.DataFrame, name: str, number: int) -> Slice:
    answered = part[part["ok"]]
    failed = len(part) - len(answered)
    values = {metric: np.sort(answered[metric].dropna().to_numpy()) for metric in METRICS}
    figures = {
        metric: tuple(quantiles.quantile(ordered, q, failed) for q in P50_AND_P99) for metric, ordered in values.items()
    }
    return Slice(label(name, number), SLICES[name][number], len(part), failed, **figures)
