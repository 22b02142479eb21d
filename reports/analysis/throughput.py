"""What arrived inside the window (requests and tokens per second, what met the objectives, what tokens cost), and
whether the backlog grows through it: then the percentiles depend on how long the run was.

Backlog at an instant: requests that were due and are not over. In a steady state it goes up and down with the arrivals;
when more comes than can be served it rises on and on, and so does the time that a token takes, from the request's due
instant to its end. Over the thirds of the window the first must rise by more than chance, the second steadily: a trace
whose rate rises gives the first without the second, as does one whose answers grow longer (therefore time per token,
not per request).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traces.request import NS_PER_S

from .gates import OBJECTIVES
from .quantiles import Values

GROWTH = 1.3  # a third's median time per token over the third's before
LEAST = 20  # requests in the window, below which nothing is said


@dataclass(frozen=True, slots=True)
class Throughput:
    """Requests and tokens per second of the window."""

    requests_per_s: float
    output_tokens_per_s: float


def rates(rows: pd.DataFrame, window: tuple[float, float]) -> Throughput:
    """What really arrived inside the window (ns), whenever its request was due: what is drained after the window must
    not count. A stream's tokens are spread evenly from its first to its last. `rows` includes the warm-up's."""
    begin, end = window
    window_s = (end - begin) / NS_PER_S
    if window_s <= 0:
        return Throughput(0.0, 0.0)
    first, last = rows["first_token"].to_numpy(), rows["last_token"].to_numpy()
    inside = np.minimum(last, end) - np.maximum(first, begin)
    length = np.maximum(last - first, 1)
    share = np.clip(np.where(last > first, inside / length, (first >= begin) & (first < end)), 0, 1)
    done = rows["ok"] & (rows["done"] >= begin) & (rows["done"] < end)
    tokens = np.nansum(share * rows["output_count"].to_numpy())
    return Throughput(float(done.sum() / window_s), float(tokens / window_s))


def meets(answered: pd.DataFrame, objectives: Mapping[str, float]) -> pd.Series[bool]:
    """Which answered requests met every objective (metric -> seconds). An undefined figure (TPOT of one token) violates
    nothing; but whoever gets a whole answer and no stream waits for the first token until its end."""
    good = pd.Series(True, index=answered.index)
    for metric, limit in objectives.items():
        if metric in OBJECTIVES:
            times = answered[metric]
            if metric in ("ttft", "ttft_from_due"):
                times = times.fillna(answered["e2e"])
            good &= ~(times > limit)
    return good


def costs(
    price_per_hour: float | None, watts: float | None, tokens_per_s: float, good_tokens_per_s: float | None
) -> dict[str, float] | None:
    """What a million output tokens cost at this load, and joules per token; None without a price, watts or tokens.

    Price and watts are of the whole target, whatever number of machines stands behind its address. The good tokens are
    those of requests that met every objective.
    """
    if (not price_per_hour and not watts) or tokens_per_s <= 0:
        return None
    cost = {}
    if price_per_hour:
        cost["per_million_tokens"] = price_per_hour / 3600 / tokens_per_s * 1e6
        if good_tokens_per_s:
            cost["per_million_good_tokens"] = price_per_hour / 3600 / good_tokens_per_s * 1e6
    if watts:
        cost["joules_per_token"] = watts / tokens_per_s
    return cost


def backlog(rows: pd.DataFrame, instants: Values) -> Values:
    """Requests that were due at each instant (ns, sorted) and not yet over."""
    due = np.sort(rows["due"].to_numpy())
    done = rows["done"].to_numpy()
    done = np.sort(done[np.isfinite(done)])
    begun, over = (np.searchsorted(ends, instants, side="right") for ends in (due, done))
    return np.asarray(begun - over, np.float64)


def overloaded(rows: pd.DataFrame, window: tuple[float, float]) -> bool:
    """Did the backlog grow through the window? `rows` of one target in one step, warm-up included; window in ns."""
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
    slower = times[1] >= GROWTH * times[0] and times[2] >= GROWTH * times[1]
    return bool(levels[2] - levels[0] > noise and slower)


def _median(values: Values) -> float:
    # By rank, because failures are inf and a mean of two infinities is none.
    return float(np.sort(values)[len(values) // 2]) if len(values) else 0.0
