"""Figures by slice: in-flight at send, prompt length, output length. Marginal, never crossed: cells would be empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import quantiles

# Lower edges of the buckets; the last is open.
SLICES: dict[str, tuple[int, ...]] = {
    "in_flight": (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025),
    "prompt_tokens": (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072),
    "output_count": (0, 16, 64, 128, 256, 512, 1024, 2048, 4096),
}
METRICS = ("ttft", "ttft_from_due", "tpot", "e2e")


def bucket(values: pd.Series[float], name: str) -> pd.Series[Any]:
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


def table(counted: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """One row a bucket that has requests: n, failed, and p50 and p99 of the metrics with their intervals (s).

    Output length is what was given, so a failed request has none: that slice shows answered requests only.
    """
    rows = counted[counted["ok"]] if name == "output_count" else counted
    found = []
    for number, part in rows.groupby(bucket(rows[name], name)):
        answered = part[part["ok"]]
        failed = len(part) - len(answered)
        row: dict[str, Any] = {"bucket": label(name, int(number)), "low": SLICES[name][int(number)]}
        row |= {"n": len(part), "failed": failed}
        for metric in METRICS:
            values = np.sort(answered[metric].dropna().to_numpy())
            row[metric] = [quantiles.quantile(values, q, failed).as_json() for q in (0.5, 0.99)]
        found.append(row)
    return found
