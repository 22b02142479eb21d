"""Quantiles against numpy and scipy, and the promise of their intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from reports.analysis import quantiles


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995), (0.01, 299)])
def test_samples_needed(q: float, n: int) -> None:
    assert quantiles.needed(q) == n
    assert quantiles.ranks(n, q) is not None
    assert quantiles.ranks(n - 1, q) is None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_without_failures_it_is_numpys(values: list[float], q: float) -> None:
    ordered = np.sort(values)
    assert quantiles.at(ordered, q) == pytest.approx(np.quantile(ordered, q), rel=1e-12, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(6, 4000), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_ranks_cover_95_percent_and_are_tight(n: int, q: float) -> None:
    ranks = quantiles.ranks(n, q)
    if ranks is None:
        assert n < quantiles.needed(q)
        return
    low, high = ranks
    assert 1 <= low < high <= n
    assert covered(n, q, low, high) >= 0.95 - 1e-9
    assert covered(n, q, low + 1, high - 1) < 0.95


def covered(n: int, q: float, low: int, high: int) -> float:
    """P(X(low) <= true quantile <= X(high))."""
    return float(binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q))


@pytest.mark.parametrize("q", [0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_just_enough_samples_give_one_sided_intervals_that_still_cover(q: float) -> None:
    first = quantiles.needed(q)
    for n in range(first, first + max(30, first // 2), max(1, first // 60)):
        low, high = quantiles.ranks(n, q) or (0, 0)
        assert covered(n, q, low, high) >= 0.95 - 1e-9, n


def test_failures_push_the_quantile_up_and_then_out() -> None:
    values = np.arange(1.0, 91.0)
    assert quantiles.plain(values, 0.5, failed=10).value == pytest.approx(np.quantile(values, 0.5 * 100 / 90))
    assert quantiles.plain(values, 0.5, failed=10).answered == pytest.approx(45.5)
    assert quantiles.plain(values, 0.9, failed=10).value == 90
    beyond = quantiles.plain(values, 0.91, failed=10)
    assert beyond.value == math.inf
    stored = orjson.loads(orjson.dumps(beyond))
    assert stored["value"] is None
    assert stored["unbounded"] is True


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6), max_size=400), st.integers(0, 300), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_endpoint_cant_improve_by_failing(values: list[float], failed: int, q: float) -> None:
    ordered = np.sort(np.array(values, float))
    found = quantiles.plain(ordered, q, failed)
    if len(ordered) > 1 and found.n < len(ordered) * (len(ordered) - 1):
        # The slowest request failed instead: no quantile gets better for it by more than the step to its neighbour.
        worse = quantiles.plain(ordered[:-1], q, failed + 1)
        position = q * found.n * (len(ordered) - 1) / len(ordered)
        assert worse.value >= ordered[min(max(int(position) - 1, 0), len(ordered) - 2)]


def test_nothing_at_all() -> None:
    assert math.isnan(quantiles.plain(np.array([]), 0.5).value)
    assert quantiles.plain(np.array([]), 0.5, failed=3).value == math.inf
