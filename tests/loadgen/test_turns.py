"""Who comes first: balanced orders, and when targets may run side by side."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import certificate
from loadgen.certificate import Certificate
from loadgen.options import Load
from loadgen.rounds import Ladder, rounds_of
from loadgen.turns import PARALLEL, RANDOM, SEQUENTIAL, Turns, balanced, check_order, turns_of
from targets.exchange import SafeLoad
from targets.target import Target
from traces.errors import InputError

APART = [Target("one", "http://192.0.2.1", "m"), Target("two", "http://192.0.2.2", "m")]
HERE = [Target("one", "http://127.0.0.1:1", "m"), Target("two", "http://127.0.0.1:2", "m")]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000), st.integers(0, 3))
def test_each_target_is_in_each_place_equally_often(count: int, blocks: int, seed: int, step: int) -> None:
    orders = [balanced(count, number, (seed, step)) for number in range(1, count * blocks + 1)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    for place in range(count):
        assert set(Counter(order[place] for order in orders).values()) == {blocks}
    assert orders == [balanced(count, number, (seed, step)) for number in range(1, count * blocks + 1)]


def test_orders_are_random() -> None:
    firsts = Counter(balanced(2, 1, (seed, 0))[0] for seed in range(400))
    assert 150 < firsts[0] < 250
    assert len({tuple(balanced(3, number, (0, 0))) for number in range(1, 100)}) == 6


def test_groups_of_each_order() -> None:
    names, steps = ["a", "b"], ["base", "2x"]
    assert Turns(PARALLEL, "").groups(names, steps) == {"base": [["a", "b"]], "2x": [["a", "b"]]}
    assert Turns(SEQUENTIAL, "").groups(names, steps, 2) == {"base": [["a"], ["b"]], "2x": [["a"], ["b"]]}
    rounds = [Turns(RANDOM, "").groups(names, steps, number) for number in range(1, 5)]
    for step in steps:
        assert Counter(groups[step][0][0] for groups in rounds) == {"a": 2, "b": 2}


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    certificate.save(Certificate("2026-11-21", certificate.machine(), (), (SafeLoad(500, 50_000.0),)))


@pytest.mark.parametrize(
    ("targets", "rate", "order", "why"),
    [
        (APART, 2.0, PARALLEL, "share no host"),
        (APART, 500.0, RANDOM, "side by side a process would read about"),
        (HERE, 2.0, RANDOM, "one and two share a host, this machine"),
        ([APART[0], Target("again", APART[0].url, "m")], 2.0, RANDOM, "one and again share a host, 192.0.2.1"),
        (APART[:1], 2.0, PARALLEL, "there is one target"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("certified")
def test_side_by_side_where_nobody_takes_anything_from_another(
    targets: list[Target], rate: float, order: str, why: str
) -> None:
    rounds = rounds_of("azure-conv", Load(request_rate=rate, duration=10.0), Ladder(), 2)
    turns = turns_of(None, targets, rounds, 1)
    assert turns.order == order and why in turns.why
    assert turns_of(SEQUENTIAL, targets, rounds, 1) == Turns(SEQUENTIAL, "as asked for")


def test_without_a_certificate_each_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    rounds = rounds_of("azure-conv", Load(concurrency=4, duration=10.0), Ladder(), 2)
    turns = turns_of(None, APART, rounds, 1)
    assert turns.order == RANDOM and "no certificate" in turns.why


def test_no_such_order() -> None:
    with pytest.raises(InputError, match="--order: no such choice: 'shuffled'"):
        check_order("shuffled")
