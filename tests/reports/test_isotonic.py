"""Isotonic regression: known fits, and the condition that only the best fit meets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis.isotonic import crossing, fit

POINTS = st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("values", "weights", "fitted"),
    [
        ([1, 2, 3], [1, 1, 1], [1, 2, 3]),
        ([3, 2, 1], [1, 1, 1], [2, 2, 2]),
        ([1, 3, 2, 4], [1, 1, 1, 1], [1, 2.5, 2.5, 4]),
        ([1, 3, 2, 4], [1, 3, 1, 1], [1, 2.75, 2.75, 4]),
        ([0, 5, 1, 0], [1, 1, 1, 1], [0, 2, 2, 2]),
        ([], [], []),
    ],
)
def test_adjacent_violators_are_pooled(values: list[float], weights: list[float], fitted: list[float]) -> None:
    assert fit(values, weights).tolist() == fitted


@given(POINTS, st.lists(st.floats(-10, 10), min_size=12, max_size=12))
def test_no_other_rising_curve_is_nearer(points: list[tuple[float, float]], other: list[float]) -> None:
    """A projection onto a convex cone: the residual makes no acute angle with the way to any other point of it."""
    values, weights = np.array(points).T
    fitted = fit(values, weights)
    rising = np.sort(other)[: len(values)]
    assert (np.diff(fitted) >= -1e-12).all()
    assert np.sum(weights * (values - fitted)) == pytest.approx(0, abs=1e-9)
    assert np.sum(weights * (values - fitted) * (rising - fitted)) <= 1e-7


@pytest.mark.parametrize(
    ("fitted", "level", "at"),
    [
        ([0.0, 2.0], 1.0, 2.0),  # half-way in the logarithm from 1 to 4
        ([0.0, 1.0], 1.0, None),
        ([0.0, 0.5], 1.0, None),
        ([2.0, 3.0], 1.0, None),
    ],
)
def test_where_the_curve_passes_a_level(fitted: list[float], level: float, at: float | None) -> None:
    assert crossing([1.0, 4.0], fitted, level) == (None if at is None else pytest.approx(at))
