"""Does the backlog grow through the window? Then the percentiles depend on how long the run was.

Backlog at an instant: requests that were due and are not over. In a steady state it goes up and down with the arrivals;
when more comes than can be served it rises on and on, and so does the time that a token takes, from the request's due
instant to its end. Over the thirds of the window the first must rise by more than chance, the second steadily: a trace
whose rate rises gives the first without the second, as does one whose answers grow longer (therefore time per token,
not per request).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .quantiles import Values

GROWTH = 1.3  # a third's median time per token over the third's before
LEAST = 20  # requests in the window, below which nothing is said


def backlog(rows: pd.DataFrame, instants: Values) -> Values:
    """Requests that were due at each instant (ns, sorted) and not yet over."""
    due = np.sort(rows["due"].to_numpy())
    done = rows["done"].to_numpy()
    done = np.sort(done[np.isfinite(done)])
    return np.asarray(
        np.searchsorted(due, instants, side="right") - np.searchsorted(done, instants, side="right"), dtype=np.float64
    )


def grows(rows: pd.DataFrame, window: tuple[float, float]) -> bool:
    """`rows` of one target in one step, warm-up included; window in ns."""
    begin, end = window
    counted = rows[rows["counted"]]
    if end <= begin or len(counted) < LEAST:
        return False
    edges = np.linspace(begin, end, 4)
    levels = [float(backlog(rows, np.linspace(edges[i], edges[i + 1], 50)).mean()) for i in range(3)]
    tokens = np.maximum(counted["output_tokens"], 1)
    took = np.where(counted["ok"], (counted["done"] - counted["due"]) / tokens, np.inf)
    third = np.clip(np.searchsorted(edges, counted["due"].to_numpy(), side="right") - 1, 0, 2)
    times = [_median(took[third == i]) for i in range(3)]
    noise = 3 * np.sqrt(max(levels[0], 1.0))  # Poisson: what chance alone moves a steady backlog by
    return bool(levels[2] - levels[0] > noise and _rises(times))


def _rises(values: list[float]) -> bool:
    return values[1] >= GROWTH * values[0] and values[2] >= GROWTH * values[1]


def _median(values: Values) -> float:
    # By rank, because failures are inf and a mean of two infinities is none.
    return float(np.sort(values)[len(values) // 2]) if len(values) else 0.0
