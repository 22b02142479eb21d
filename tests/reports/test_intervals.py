"""Intervals that heed the queue: batch means inside a window, t over rounds, bounds of shares."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis import intervals

S = 1_000_000_000


def dues(n: int, seconds: float = 600.0) -> np.ndarray:
    return (np.arange(n) * (seconds * S / n)).astype(np.int64)


def clustered(rng: np.random.Generator, n: int, of: int) -> np.ndarray:
    """Values that `of` neighbours share: an effective sample of n / of."""
    return np.repeat(rng.lognormal(size=n // of), of)


def test_independent_requests_are_worth_themselves_and_covered() -> None:
    rng, covered, effective = np.random.default_rng(1), 0, []
    for _ in range(300):
        found = intervals.of_window(dues(2000), rng.lognormal(size=2000), 0.5, (0, 600 * S))
        covered += found.low <= 1.0 <= found.high
        effective.append(found.effective)
    assert 0.92 <= covered / 300 <= 1
    assert 1000 < np.median(effective) <= 2000


def test_requests_that_share_a_queue_are_worth_fewer_and_still_covered() -> None:
    rng, covered, effective = np.random.default_rng(2), 0, []
    for _ in range(300):
        found = intervals.of_window(dues(2000), clustered(rng, 2000, 40), 0.5, (0, 600 * S))
        covered += found.low <= 1.0 <= found.high
        effective.append(found.effective)
    assert 0.90 <= covered / 300 <= 1  # the binomial interval covers about 25 % here
    assert np.median(effective) == pytest.approx(50, rel=0.4)


def test_a_tail_that_nothing_lies_beyond_has_no_interval_and_says_how_much_longer() -> None:
    found = intervals.of_window(dues(200), np.random.default_rng(3).lognormal(size=200), 0.99, (0, 600 * S))
    assert not found.bounded and found.low == -inf
    assert 600 < found.more_s < 6000
    longer = intervals.of_window(dues(4000), np.random.default_rng(3).lognormal(size=4000), 0.99, (0, 12_000 * S))
    assert longer.bounded and longer.more_s == 0


def test_failures_are_infinite_and_so_is_what_they_reach() -> None:
    values = np.random.default_rng(4).lognormal(size=1000)
    values[::5] = inf
    found = intervals.of_window(dues(1000), values, 0.99, (0, 600 * S))
    assert found.value == inf and found.high == inf
    median = intervals.of_window(dues(1000), values, 0.5, (0, 600 * S))
    assert median.low < median.value < median.high < inf


def test_batches_that_rise_are_drifting() -> None:
    values = np.random.default_rng(5).lognormal(size=2000) * np.linspace(1, 3, 2000)
    assert intervals.of_window(dues(2000), values, 0.5, (0, 600 * S)).drifting
    assert not intervals.of_window(dues(2000), np.random.default_rng(5).permutation(values), 0.5, (0, 600 * S)).drifting


def test_no_requests_no_figure() -> None:
    nothing = np.array([])
    assert isnan(intervals.of_window(nothing.astype(np.int64), nothing, 0.5, (0, S)).value)
    share = intervals.of_share(nothing.astype(np.int64), nothing.astype(bool), (0, S))
    assert isnan(share.value) and (share.low, share.high, share.n) == (0.0, 1.0, 0)


def test_a_share_is_bounded_even_where_nothing_happened() -> None:
    never = np.zeros(1000, bool)
    found = intervals.of_share(dues(1000), never, (0, 600 * S), np.random.default_rng(6).lognormal(size=1000))
    assert found.value == found.low == 0
    assert 0.002 < found.high < 0.02  # the rule of three says 0.003


def test_clustered_events_widen_a_shares_bounds() -> None:
    rng = np.random.default_rng(7)
    alone = rng.random(2000) < 0.1
    together = np.repeat(rng.random(50) < 0.1, 40)
    narrow = intervals.of_share(dues(2000), alone, (0, 600 * S))
    wide = intervals.of_share(dues(2000), together, (0, 600 * S))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@given(st.integers(1, 60), st.booleans())
def test_students_quantiles(freedom: int, both: bool) -> None:
    ours = intervals.two_sided(freedom) if both else intervals.one_sided(freedom)
    assert ours == pytest.approx(scipy.stats.t.ppf(0.975 if both else 0.95, freedom), rel=2e-3)


def test_over_rounds_is_students_t_on_logarithms() -> None:
    centre, low, high = intervals.over_rounds([1.0, 1.1, 0.9, 1.05, 0.95])
    logs = np.log([1.0, 1.1, 0.9, 1.05, 0.95])
    expected = scipy.stats.t.interval(0.95, 4, logs.mean(), logs.std(ddof=1) / 5**0.5)
    assert (low, high) == pytest.approx(tuple(np.exp(expected)), rel=1e-4)
    assert centre == pytest.approx(np.exp(logs.mean()))
    assert intervals.over_rounds([1.0]) == (1.0, 0.0, inf)
    assert intervals.over_rounds([1.0, inf])[2] == inf
