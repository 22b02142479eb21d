"""Bounds of shares: over rounds, under repeated looks, and the time that an undecided one asks for; all simulated."""

from __future__ import annotations

from math import inf, isfinite, isnan

import numpy as np
import pytest

from reports.analysis.quantiles import BATCHES
from reports.analysis.shares import FIRM, level, share

SIZE = 120  # requests of a batch


def events(rng: np.random.Generator, p: float, rounds: int, *, of: int = 1, between: float = 0.0) -> np.ndarray:
    """Events by batch: `of` requests share their fate, and a round's share differs by a factor of sd `between`."""
    factors = np.repeat(rng.lognormal(-(between**2) / 2, between, rounds), BATCHES)
    return of * rng.binomial(SIZE // of, np.minimum(p * factors, 1))


def sizes(rounds: int) -> np.ndarray:
    return np.full(rounds * BATCHES, SIZE)


@pytest.mark.parametrize("rounds", [1, 2, 5, 8])
@pytest.mark.parametrize("of", [1, 10])
def test_each_bound_is_wrong_in_one_case_of_twenty(rounds: int, of: int) -> None:
    rng, wrong = np.random.default_rng(rounds + of), np.zeros(2)
    for _ in range(600):
        found = share(events(rng, 0.1, rounds, of=of), sizes(rounds))
        wrong += (found.low > 0.1, found.high < 0.1)
    assert (wrong / 600 < 0.08).all()


def test_what_differs_from_round_to_round_counts_where_there_are_enough_rounds() -> None:
    rng, wrong = np.random.default_rng(5), {FIRM - 1: 0, FIRM: 0}
    for rounds in wrong:
        for _ in range(400):
            found = share(events(rng, 0.1, rounds, between=0.5), sizes(rounds))
            wrong[rounds] += (found.low > 0.1) + (found.high < 0.1)
    assert wrong[FIRM] / 400 < 0.13 < wrong[FIRM - 1] / 400


@pytest.mark.parametrize("p", [0.01, 0.1])
def test_looking_after_each_round_is_not_wrong_more_often_than_looking_once(p: float) -> None:
    def wrong_share(looks: int) -> float:
        rng, wrong, planned = np.random.default_rng(6), 0, 8
        for _ in range(400):
            happened = events(rng, p, planned, of=2)
            wrong += any(
                share(happened[: BATCHES * rounds], sizes(rounds), level=level(looks)).side(p)
                for rounds in range(1, planned + 1)
            )
        return wrong / 400

    assert wrong_share(looks=8) <= 0.10  # two sides of 5 % each
    assert wrong_share(looks=1) > 0.15


@pytest.mark.parametrize(("p", "limit", "of"), [(0.075, 0.1, 1), (0.005, 0.01, 1), (0.08, 0.05, 6), (0.5, 0.45, 12)])
def test_the_time_that_an_undecided_share_asks_for_decides_it(p: float, limit: float, of: int) -> None:
    rng, told, asked = np.random.default_rng(8), 0, 0
    for _ in range(200):
        first = share(events(rng, p, 1, of=of), sizes(1))
        more = first.more(limit)
        if first.side(limit) or not isfinite(more):
            continue
        whole = first.n * (1 + more) / BATCHES / of
        again = share(of * rng.binomial(round(whole), p, BATCHES), np.full(BATCHES, of * round(whole)))
        asked, told = asked + 1, told + bool(again.side(limit))
    assert asked >= 8
    assert told / asked >= 0.8


def test_at_the_limit_no_time_is_asked_for() -> None:
    at = share(np.full(BATCHES, 12), sizes(1))
    assert at.more(0.1) == inf
    assert isnan(share(np.zeros(BATCHES, np.int64), sizes(1)).more(0.001))
    assert isnan(at.more(0.0)) and isnan(at.more(1.0))
