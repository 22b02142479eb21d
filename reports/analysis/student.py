"""Student's t: the width of an interval whose standard error comes from a few parts. Pure."""

from __future__ import annotations

from functools import lru_cache
from math import atan, cos, pi, sin, sqrt


def cdf(t: float, df: int) -> float:
    """P(T <= t) for `df` degrees of freedom, by the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = atan(t / sqrt(df))
    square, term, total = cos(angle) ** 2, 1.0, 0.0
    if df % 2:
        term = cos(angle)
        for i in range(3, df + 1, 2):
            total += term
            term *= square * (i - 1) / i
        return 0.5 + (angle + sin(angle) * total) / pi
    for i in range(2, df + 1, 2):
        total += term
        term *= square * (i - 1) / i
    return 0.5 + sin(angle) * total / 2


@lru_cache(maxsize=4096)
def t(df: int, share: float) -> float:
    """The t below which `share` of the distribution lies: t(4, 0.975) = 2.776, t(9, 0.95) = 1.833."""
    if not 0 < share < 1 or df < 1:
        raise ValueError(f"no quantile {share} of Student's t({df})")
    if share < 0.5:
        return -t(df, 1 - share)
    low, high = 0.0, 1.0
    while cdf(high, df) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, df) < share else (low, middle)
    return (low + high) / 2
