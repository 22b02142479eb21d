"""The capacity search: the highest request rate at which every gate holds. Pure; `commands.capacity` makes the runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

MARGIN = 1.2  # requests beyond what a quantile needs: arrivals are random


@dataclass(frozen=True, slots=True)
class Found:
    """`holds`: the highest rate seen to hold (0: none); `fails`: the lowest above it seen to fail (None: none was)."""

    holds: float
    fails: float | None


def search(holds: Callable[[float], bool], first: float, highest: float, precision: float = 0.1) -> Found:
    """Doubles the rate from `first` until the gates fail, then halves the interval, in the logarithm.

    Ends when the two rates are within `precision` (0.1: 10 %) of each other, or at `highest`. A first rate that fails
    is halved until one holds, five times at most.
    """
    rate, good, bad = min(first, highest), 0.0, None
    while bad is None or (good == 0 and rate >= first / 32):
        if holds(rate):
            good = rate
            if bad is not None or rate >= highest:
                break
            rate = min(2 * rate, highest)
        else:
            bad = rate
            if good:
                break
            rate /= 2
    while good and bad is not None and bad > good * (1 + precision):
        middle = sqrt(good * bad)
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return Found(good, bad)


def seconds(rate: float, duration: float, requests: int) -> float:
    """A step's length: as wanted, or as long as the gates' quantiles need `requests`."""
    return max(duration, MARGIN * requests / rate)
