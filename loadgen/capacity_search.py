"""The capacity search: which rate to try next. Pure; `capacities` makes a run for each rate that it tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from traces.errors import InputError

MARGIN = 1.2  # requests beyond what a quantile needs: arrivals are random


@dataclass(frozen=True, slots=True)
class Bracket:
    """`holds`: the highest rate seen to hold (0: none); `fails`: the lowest above it seen to fail (None: none was).
    Requests a second."""

    holds: float
    fails: float | None


@dataclass(frozen=True)
class Range:
    """Where the search goes: from `lowest`, never above `highest` (requests/s), until the answer is within `precision`
    (0.1: 10 %). Raises InputError."""

    lowest: float = 1.0
    highest: float = 1000.0
    precision: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest or not self.precision > 0:
            raise InputError("expected 0 < --from <= --to, and a --precision above 0", where="capacity")


def search(holds: Callable[[float], bool], first: float, highest: float, precision: float = 0.1) -> Bracket:
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
    return Bracket(good, bad)


def seconds(rate: float, duration: float, requests: int) -> float:
    """A step's length: as wanted, or as long as the gates' quantiles need `requests`."""
    return max(duration, MARGIN * requests / rate)
