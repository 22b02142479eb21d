"""What arrived inside the window: requests and tokens per second, what met the objectives, and what tokens cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traces.request import NS_PER_S

from .gates import OBJECTIVES


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
        cost["per_million_tokens"] = float(price_per_hour) / 3600 / tokens_per_s * 1e6
        if good_tokens_per_s:
            cost["per_million_good_tokens"] = float(price_per_hour) / 3600 / good_tokens_per_s * 1e6
    if watts:
        cost["joules_per_token"] = float(watts) / tokens_per_s
    return cost
