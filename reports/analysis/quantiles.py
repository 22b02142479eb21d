"""Exact quantiles with their intervals, failures taken as +inf, and how many samples a quantile needs.

The quantile is the linear interpolation between order statistics (numpy's default, and what vLLM prints). With
failures, `n` is the number of requests and `n_ok` of those with a value: the adjusted quantile is the values'
quantile(q * n / n_ok), and unbounded (inf) above n_ok / n.

The interval is distribution-free: the number of samples below the true q-quantile is binomial(n, q), so ranks l <= u
with P(l <= B < u) >= 95 % bound it by the order statistics X(l) and X(u) (David and Nagaraja, Order Statistics, 7.1).
Such ranks exist only where 1 - q^n - (1 - q)^n >= 95 %: p50 needs 6 samples, p95 59, p99 299, p99.9 2,995.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf, isfinite, lgamma, log, nan
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float64]]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile of `n` requests (or values), of those without a value too. `value`, `low` and `high` are inf where
    failures leave them unbounded, and nan where there are none. `answered` is the quantile of the values alone. Where n
    < needs (not `enough`) the sample can't bound it: print no bare number."""

    q: float
    value: float
    unbounded: bool
    low: float
    high: float
    answered: float
    n: int
    needs: int
    enough: bool


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None


@lru_cache
def needed(q: float) -> int:
    """The smallest sample whose order statistics bound the q-quantile with 95 %."""
    if not 0 < q < 1:
        return 1
    n = max(1, ceil(log(1 - CONFIDENCE) / log(max(q, 1 - q))))
    while 1 - q**n - (1 - q) ** n < CONFIDENCE:
        n += 1
    return n


@lru_cache(maxsize=4096)
def ranks(n: int, q: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that bound the q-quantile of n samples; None where none do. Tails are
    equal (2.5 %) where they can be; near the ends of the sample the one rank that is left takes what it needs and the
    other tail gets the rest."""
    if n < needed(q) or not 0 < q < 1:
        return None
    first, mass = _binomial(n, q)
    below = np.concatenate([[0.0], np.cumsum(mass)])  # below[i] = P(B < first + i)
    tail = 1 - CONFIDENCE
    # What can't be had on one side, because no rank lies beyond the last, the other side has to make up for.
    upper_tail, lower_tail = min(tail / 2, tail - (1 - q) ** n), min(tail / 2, tail - q**n)
    low = first + int(np.searchsorted(below, lower_tail, side="right")) - 1
    high = first + int(np.searchsorted(below, 1 - upper_tail - 1e-12))
    return max(1, min(low, n)), max(1, min(high, n))


def _binomial(n: int, q: float) -> tuple[int, Values]:
    """P(B = k) for k from `first` on, over all k that matter (12 standard deviations)."""
    width = 12 * (n * q * (1 - q)) ** 0.5 + 12
    first, last = max(0, int(n * q - width)), min(n, int(n * q + width) + 1)
    k = np.arange(first, last + 1)
    whole = lgamma(n + 1)
    choose = np.array([whole - lgamma(i + 1) - lgamma(n - i + 1) for i in k.tolist()])
    return first, np.exp(choose + k * log(q) + (n - k) * log(1 - q))


def at(values: Values, q: float) -> float:
    """The quantile of sorted values; nan without any, inf where q > 1."""
    if q > 1:
        return inf
    if not len(values):
        return nan
    position = q * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return float(values[below] + (values[above] - values[below]) * (position - below))


def quantile(values: Values, q: float, failed: int = 0) -> Quantile:
    """The adjusted q-quantile of sorted, finite `values` beside `failed` requests that have none."""
    n = len(values) + failed
    share = q * n / len(values) if len(values) else inf
    value = at(values, share) if n else nan
    bounds = ranks(n, q)
    low, high = (nan, nan) if bounds is None else (_ranked(values, bounds[0]), _ranked(values, bounds[1]))
    return Quantile(q, value, value == inf, low, high, at(values, q), n, needed(q), n >= needed(q))


def _ranked(values: Values, rank: int) -> float:
    return float(values[rank - 1]) if rank <= len(values) else inf
