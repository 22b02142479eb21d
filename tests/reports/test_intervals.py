"""Intervals that heed the queue: batch means inside a window, and bounds of shares."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis.quantiles import BATCHES, Ordered, Quantile, at, batch_of, needed, quantile, ranks
from reports.analysis.shares import share
from reports.render import findings

SECONDS = 600.0
NONE = np.zeros(BATCHES, np.int64)


def window(values: np.ndarray, failed: np.ndarray = NONE) -> Ordered:
    """Values in the order of their requests, which come evenly."""
    batch = batch_of(np.arange(len(values)), (0, len(values)))
    return Ordered.of(np.asarray(values, np.float64), batch, failed, SECONDS)


def clustered(rng: np.random.Generator, n: int, of: int) -> np.ndarray:
    """Values that `of` neighbours share: an effective sample of n / of."""
    return np.repeat(rng.lognormal(size=n // of), of)


def medians(seed: int, of: int) -> tuple[float, float, float]:
    """The share of 300 windows of 2,000 requests whose interval holds the true median, 1; that of the interval for
    independent requests; and the median effective sample."""
    rng, covered, naive, effective = np.random.default_rng(seed), 0, 0, []
    for _ in range(300):
        sample = window(clustered(rng, 2000, of))
        median = quantile(sample, 0.5)
        low, high = ranks(2000, 0.5) or (1, 2000)
        naive += sample.values[low - 1] <= 1 <= sample.values[high - 1]
        covered += median.low <= 1 <= median.high
        effective.append(median.effective)
    return covered / 300, naive / 300, float(np.median(effective))


def test_independent_requests_are_worth_themselves() -> None:
    covered, _, effective = medians(1, of=1)
    assert 0.92 <= covered <= 1
    assert 1000 < effective <= 2000


def test_requests_that_share_a_queue_are_worth_fewer() -> None:
    covered, naive, effective = medians(2, of=40)
    assert 0.90 <= covered <= 1
    assert naive < 0.4
    assert effective == pytest.approx(50, rel=0.4)


def test_a_tail_with_nothing_beyond_it_has_no_interval_and_says_how_much_longer() -> None:
    tail = quantile(window(np.random.default_rng(3).lognormal(size=400)), 0.99)
    assert isnan(tail.low) and isnan(tail.high) and tail.enough
    assert 60 < tail.more_s < 10 * SECONDS
    longer = quantile(window(np.random.default_rng(3).lognormal(size=8000)), 0.99)
    assert longer.low < longer.value < longer.high < inf
    assert longer.more_s == 0


def test_failures_are_infinite_and_so_is_what_they_reach() -> None:
    values = np.random.default_rng(4).lognormal(size=800)
    sample = window(values, failed=np.full(BATCHES, 20))
    tail, median = quantile(sample, 0.99), quantile(sample, 0.5)
    assert tail.value == inf and tail.unbounded and tail.high == inf
    assert median.low < median.value < median.high < inf
    assert median.value == at(np.sort(values), 0.5 * 1000 / 800)


def test_batches_that_rise_are_drifting() -> None:
    values = np.random.default_rng(5).lognormal(size=2000) * np.linspace(1, 3, 2000)
    drifting, steady = (quantile(window(v), 0.5) for v in (values, np.random.default_rng(5).permutation(values)))
    assert drifting.drifting and not findings.interval(drifting)
    assert not steady.drifting and findings.interval(steady)


def test_a_constant_is_certain() -> None:
    certain = quantile(window(np.full(1000, 0.02)), 0.9)
    assert (certain.low, certain.value, certain.high, certain.effective) == (0.02, 0.02, 0.02, 1000)


def test_no_requests_no_figure() -> None:
    nothing = quantile(window(np.array([])), 0.5)
    assert isnan(nothing.value) and isnan(nothing.low) and not nothing.enough
    none = share(NONE, NONE)
    assert isnan(none.value) and (none.low, none.high, none.n) == (0.0, 1.0, 0)


@given(
    st.lists(st.floats(0, 100), max_size=400),
    st.lists(st.integers(0, 9), min_size=BATCHES, max_size=BATCHES),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_an_interval_holds_its_quantile(values: list[float], failed: list[int], q: float) -> None:
    sample = window(np.array(values), np.array(failed))
    figure: Quantile = quantile(sample, q)
    assert sample.excess(q).sum() == pytest.approx(0, abs=1e-6) or not sample.n
    assert figure.n == len(values) + sum(failed)
    assert figure.enough == (figure.n >= needed(q))
    if not isnan(figure.low):
        assert figure.low <= figure.value <= figure.high
        assert figure.effective * min(q, 1 - q) >= 5


def test_a_share_is_bounded_even_where_nothing_happened() -> None:
    latencies = window(np.random.default_rng(6).lognormal(size=1000))
    never = share(NONE, latencies.sizes, latencies)
    assert never.value == never.low == 0
    assert 0.002 < never.high < 0.02  # the rule of three says 0.003


def test_clustered_events_widen_a_shares_bounds() -> None:
    rng, sizes = np.random.default_rng(7), np.full(BATCHES, 200)
    alone = share(rng.binomial(200, 0.1, BATCHES), sizes)
    together = share(40 * rng.binomial(5, 0.1, BATCHES), sizes)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.effective < alone.effective / 4
