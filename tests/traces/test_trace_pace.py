"""Due instants: gamma gaps of the wanted mean and spread, sessions that move as a whole."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from traces.errors import InputError
from traces.trace import NS_PER_S, build
from traces.transforms import at_rate, pace


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_gaps_have_the_rate_and_the_burstiness(burstiness: float) -> None:
    due = at_rate(40_001, 20.0, burstiness, seed=3)
    gaps = np.diff(due) / NS_PER_S
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.06)


def test_limits() -> None:
    assert at_rate(4, inf).tolist() == [0, 0, 0, 0]
    assert at_rate(4, 2.0, inf).tolist() == [0, NS_PER_S // 2, NS_PER_S, 3 * NS_PER_S // 2]
    assert at_rate(0, 2.0).tolist() == []
    assert at_rate(1, 2.0).tolist() == [0]


def test_a_seed_is_a_draw() -> None:
    assert (at_rate(100, 5.0, seed=1) == at_rate(100, 5.0, seed=1)).all()
    assert (at_rate(100, 5.0, seed=1) != at_rate(100, 5.0, seed=2)).any()


@pytest.mark.parametrize(("rate", "burstiness", "option"), [(0, 1, "rate"), (-1, 1, "rate"), (1, 0, "burstiness")])
def test_nonsense_is_refused(rate: float, burstiness: float, option: str) -> None:
    with pytest.raises(InputError, match=f"--{option}|--request-{option}"):
        at_rate(3, rate, burstiness)


def test_sessions_keep_their_inner_distances() -> None:
    trace = build(
        {
            "due": [0, 10, 20, 30, 40],
            "prompt_tokens": [1] * 5,
            "output_tokens": [1] * 5,
            "session": [0, 1, 0, 2, 1],
            "turn": [0, 0, 1, 0, 1],
            "parent": [-1, -1, 0, -1, 1],
        }
    )
    paced = pace(trace, rate=1.0, seed=5)
    due = dict(zip(paced.column("index").tolist(), paced.column("due").tolist(), strict=True))
    assert due[2] - due[0] == 20
    assert due[4] - due[1] == 30
    assert due[0] == 0 < due[1] < due[3]
    assert (np.diff(paced.column("due")) >= 0).all()


def test_a_chain_of_parents_moves_with_its_first():
    rows = 300
    trace = build(
        {
            "due": [7 * row for row in range(rows)],
            "prompt_tokens": [1] * rows,
            "output_tokens": [1] * rows,
            "index": [1000 - row for row in range(rows)],
            "parent": [-1, -1, *(1000 - row + 2 for row in range(2, rows))],
        }
    )
    due = dict(zip(*(pace(trace, 0.5, seed=1).column(name).tolist() for name in ("index", "due")), strict=True))
    assert due[1000] == 0 < due[999]
    assert all(due[1000 - row] - due[1000 - row + 2] == 14 for row in range(2, rows))


def test_parents_in_a_circle_end_nothing():
    circle = build({"due": [0, 1, 2], "prompt_tokens": [1] * 3, "output_tokens": [1] * 3, "parent": [1, 2, 0]})
    assert len(pace(circle, 1.0)) == 3
