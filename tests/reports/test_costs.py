"""Costs: worked by hand, and from rows of a run; what gates say of a single request."""

from __future__ import annotations

from array import array
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from reports.analysis.costs import Dollars, Price, Usage, cost, dollars, usage_of
from reports.analysis.gate_grammar import implied_objectives, parse
from reports.analysis.samples import pooled, sample
from reports.store import durations
from targets.exchange import Exchange, Outcome
from targets.target import Target
from tests.exchanges import make_exchange
from traces.request import NS_PER_S

from . import made

HOUR = Target(url="http://h:1", price_per_hour=3.6, watts=700)
TOKENS = Target(url="http://h:1", price_per_million_input=1.0, price_per_million_output=4.0)
CACHED = Target(
    url="http://h:1", price_per_million_input=1.0, price_per_million_cached=0.1, price_per_million_output=4.0
)
# 100 s: 200 requests of 1,000 prompt tokens, a quarter of them cached, and 500 of answers, half of which kept the SLO.
USAGE = Usage(100.0, 200.0, 200_000.0, 50_000.0, 100_000.0, 50_000.0)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (HOUR, Dollars(0.0005, 1 / 3, 1.0, 2.0)),  # $0.10 for 200 requests, 300,000 and 100,000 tokens
        (TOKENS, Dollars(0.003, 2.0, 6.0, 12.0)),  # $0.20 + $0.40
        (CACHED, Dollars(0.002775, 1.85, 5.55, 11.1)),  # $0.15 + $0.005 + $0.40
    ],
)
def test_at_this_load(target: Target, expected: Dollars) -> None:
    price = Price.of(target)
    assert price is not None
    assert asdict(dollars(price, USAGE)) == pytest.approx(asdict(expected))


def test_an_hour_costs_the_same_when_the_machine_idles() -> None:
    hour, tokens = cost(HOUR, USAGE, 0.5), cost(CACHED, USAGE, 0.5)
    assert hour is not None and tokens is not None
    assert hour.at_mean_load is not None and tokens.at_mean_load is not None
    # At a quarter of this load the same work takes 400 s.
    assert hour.at_mean_load.per_million_output == pytest.approx(4.0)
    assert hour.at_mean_load.per_request == pytest.approx(0.002)
    assert tokens.at_mean_load == tokens.at_this_load
    assert (hour.by, tokens.by, hour.joules_per_token, tokens.joules_per_token) == ("hour", "token", 0.7, None)


def test_nothing_is_said_of_a_rate_that_the_target_was_not_seen_to_answer() -> None:
    for rate, known in ((2.0, True), (2.2, True), (2.3, False), (20.0, False)):
        figure = cost(HOUR, USAGE, rate)
        assert figure is not None and (figure.at_mean_load is not None) is known, rate
    no_rate = cost(HOUR, USAGE, None)
    assert no_rate is not None and no_rate.at_mean_load is None


def test_without_a_price_or_without_work() -> None:
    assert cost(Target(url="http://h:1"), USAGE, 1.0) is None
    assert cost(None, USAGE, 1.0) is None
    only_watts = cost(Target(url="http://h:1", watts=700), USAGE, 1.0)
    assert only_watts is not None and (only_watts.by, only_watts.at_this_load, only_watts.joules_per_token) == (
        None,
        None,
        0.7,
    )
    idle = cost(HOUR, Usage(100.0, 0.0, 0.0, 0.0, 0.0), 1.0)
    assert idle is not None and idle.at_this_load == Dollars(None, None, None, None)
    assert idle.joules_per_token is None


def test_usages_add_up() -> None:
    assert Usage(200.0, 400.0, 400_000.0, 100_000.0, 200_000.0, 100_000.0) == USAGE + USAGE
    assert (USAGE + Usage(1.0, 1.0, 1.0, 1.0, 1.0)).good is None


def answer(index: int, due: float, first: float, prompt: int, **usage: int) -> Exchange:
    """Of two tokens, a second apart."""
    at = [round(second * NS_PER_S) for second in (due, first, first + 1)]
    return make_exchange(
        index, "t", at[0], prompt, 2, outcome=Outcome.OK, started=at[0], connected=at[0], sent=at[0], body_sent=at[0],
        token_at=array("q", at[1:]), token_events=array("i", [1, 1]), done=at[2], usage_output=2, **usage,
    )  # fmt: skip


def test_the_usage_of_rows() -> None:
    """Inside a window from 10 to 20 s: the prompt whose first token came there counts, by usage where there is one."""
    rows = [
        answer(0, due=9.0, first=11.0, prompt=100, usage_prompt=110, usage_cached=40),
        answer(1, due=11.0, first=12.0, prompt=50),
        answer(2, due=19.0, first=21.0, prompt=70, usage_prompt=70, usage_cached=70),
    ]
    frame = durations.of_exchanges(rows)
    one = sample("t", "s", frame, (10.0 * NS_PER_S, 20.0 * NS_PER_S), {"ttft": 1.5})
    usage = usage_of(one)
    assert (usage.seconds, usage.input, usage.cached) == (10.0, 160.0, 40.0)
    assert usage.requests == 2
    assert usage_of(pooled([one, replace(one, round=2)])) == usage + usage


def test_the_traces_mean_is_at_a_factor_of_one(tmp_path: Path) -> None:
    """A run of one step at three times the load, 30 requests/s: an hour at 10/s costs three times as much a request."""

    def change(facts: dict[str, Any]) -> None:
        facts["phases"][0]["factor"] = 3.0
        facts["trace"]["profile"]["rate"] = 30.0

    (result,) = made.summarise(made.run(tmp_path, (made.GPU,), steps={"3x": 30.0}, seconds=40, change=change)).results
    found = result.cost
    assert found is not None and found.at_this_load is not None and found.at_mean_load is not None
    assert (found.mean_rate, found.by, found.simulated) == (10.0, "hour", True)
    here, mean = found.at_this_load.per_request, found.at_mean_load.per_request
    assert here == pytest.approx(2.65 / 3600 / result.throughput.requests_per_s)
    assert mean == pytest.approx(2.65 / 3600 / 10.0)


@pytest.mark.parametrize(
    ("gates", "objectives"),
    [
        (["ttft p99 < 800ms", "tpot p90 <= 40ms"], {"ttft": 0.8, "tpot": 0.04}),
        (["ttft p90 < 400ms", "ttft p99 < 800ms"], {"ttft": 0.8}),
        (["e2e max < 9s"], {"e2e": 9.0}),
        (["ttft p50 < 200ms", "tpot mean < 40ms"], {}),  # half of the requests may miss them
        (["gpu: ttft p99 < 1s", "@2x: ttft p99 < 1s", "ttft p99 < 1s where turn > 0"], {}),  # not everybody's
        (["errors < 1%", "lateness p99 < 10ms", "ttft p99 > 1ms", "requests > 3/s"], {}),
    ],
)
def test_what_gates_ask_of_a_single_request(gates: list[str], objectives: dict[str, float]) -> None:
    assert implied_objectives(map(parse, gates)) == objectives
