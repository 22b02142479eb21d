"""A curve that only rises, fitted to scattered points: isotonic regression. Pure.

The least-squares fit among all that never fall is found by pooling adjacent violators (Ayer et al. 1955; Barlow et al.
1972): wherever a point lies below the one before, both become their weighted mean, and so on back.
"""

from __future__ import annotations

from math import exp, log

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def fit(values: npt.ArrayLike, weights: npt.ArrayLike) -> Values:
    """The fitted value of each point, in the points' order; weights are above 0."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, points
    for value, weight in zip(np.asarray(values, float).tolist(), np.asarray(weights, float).tolist(), strict=True):
        mean, whole, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, more = blocks.pop()
            mean = (mean * whole + before * heavy) / (whole + heavy)
            whole, count = whole + heavy, count + more
        blocks.append((mean, whole, count))
    return np.repeat([mean for mean, _, _ in blocks], [count for _, _, count in blocks])


def crossing(at: npt.ArrayLike, fitted: npt.ArrayLike, level: float) -> float | None:
    """Where a fitted curve over ascending positions `at` (above 0) passes the level, between two neighbouring points
    along a straight line over the logarithm; None where it stays on one side."""
    x, y = np.asarray(at, float), np.asarray(fitted, float)
    above = int(np.searchsorted(y, level, side="right"))
    if not 0 < above < len(y):
        return None
    low, high = y[above - 1], y[above]
    part = (level - low) / (high - low)
    return exp(log(x[above - 1]) + part * (log(x[above]) - log(x[above - 1])))
