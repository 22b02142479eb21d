"""Virtual time: Exchanges as a live run's, capacity, and the journal of token instants."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from targets.exchange import Outcome
from targets.simulated.analysis import capacity, pool
from targets.simulated.build import build
from targets.simulated.server.api import RateLimits, duration
from targets.simulated.virtual import simulate
from tests.public_traces import public_trace
from traces.errors import InputError
from traces.reading import open_trace
from traces.request import Request
from traces.workload import synthesise

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return list(synthesise("azure-conv", duration=120.0, seed=3))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a100", {"pool": "3"}),
        ("h100", {"drafted": "3"}),
        ("groqrack", {"pool": "12"}),
        ("disaggregated", {"pool": "1:12"}),
        ("local-prefill", {}),
    ],
)
def test_an_exchange_for_each_request(requests, name, settings):
    endpoint = build(name, settings=settings, journal=True)
    found = list(simulate(endpoint, requests, target="t", step="s"))
    assert sorted(exchange.index for exchange in found) == [request.index for request in requests]
    for exchange in found:
        assert (exchange.target, exchange.step) == ("t", "s")
        if exchange.outcome is Outcome.OK:
            assert sum(exchange.token_events) == exchange.output_count == max(1, exchange.call.request.output_tokens)
            assert all(before <= after for before, after in pairwise(exchange.token_at))
            assert exchange.due < exchange.token_at[0] <= exchange.token_at[-1] == exchange.done
            phases = (exchange.server_queue, exchange.server_prefill, exchange.server_transfer or 0.0)
            assert sum(phases) == pytest.approx(exchange.ttft, abs=1e-6)
            assert exchange.server_decode == pytest.approx(exchange.e2e - exchange.ttft, abs=1e-6)
        else:
            assert exchange.call.request.prompt_tokens + exchange.call.request.output_tokens > endpoint.station.limit
            assert (exchange.status, exchange.outcome) == (400, Outcome.HTTP_ERROR)


def test_the_journal_changes_no_instant(requests):
    for name, settings in (("a100", {}), ("h100", {"interval_ms": "20"}), ("h100", {"batching": "static"})):
        plain = list(simulate(build(name, settings=settings), requests))
        detailed = list(simulate(build(name, settings=settings, journal=True), requests))
        for one, other in zip(plain, detailed, strict=True):
            assert list(one.token_at) == [*other.token_at[:1], *other.token_at[-1:]][: len(one.token_at)]


def test_memory_does_not_hold_the_trace():
    """The requests are taken as the instants come: only those on their way are inside."""
    inside, most = 0, 0

    def arriving():
        nonlocal inside, most
        for number in range(3000):
            inside += 1
            most = max(most, inside)
            yield Request(number, number * SECOND, 100, 10)

    for _ in simulate(build("h100"), arriving()):
        inside -= 1
    assert most < 10


def test_a_pool_sized_for_60_percent_use_has_no_growing_queue(requests):
    fitting = [request for request in requests if request.prompt_tokens + request.output_tokens <= 4096]
    rate = len(fitting) / 120
    for name in ("a100", "h100", "groqrack", "disaggregated"):
        size = pool(name, fitting, rate)
        found = list(simulate(build(name, settings={"pool": size}), fitting))
        waits = sorted(exchange.server_queue for exchange in found)
        assert waits[len(waits) // 2] < 0.06  # one step of a full batch
        half = "1" if name != "disaggregated" else "1:1"
        if size != half:
            starved = list(simulate(build(name, settings={"pool": half}), fitting))
            assert max(exchange.server_queue for exchange in starved) > 2 * waits[-1]


def test_capacity_is_what_physics_says():
    """About 2.5-3 req/s for an a100-40g, 0.9 for a rack, of the Azure conversations."""
    sample = list(open_trace(public_trace("AzureLLMInferenceTrace_conv.csv"))[:4000])
    assert capacity("a100", sample)[0] == pytest.approx(3.0, rel=0.2)
    assert capacity("groqrack", sample)[0] == pytest.approx(0.8, rel=0.15)
    prefill, decode = capacity("disaggregated", sample)
    assert prefill > 10 * decode


def test_nothing_that_fits_is_said():
    with pytest.raises(InputError, match="fits"):
        capacity("a100", [Request(0, 0, 9000, 10)])


def test_static_batching_and_trains_wait_longer(requests):
    few = requests[:150]

    def mean_ttft(**settings: str) -> float:
        found = [x for x in simulate(build("h100", settings={"max_batch": "8", **settings}), few) if x.ok]
        return sum(x.ttft for x in found) / len(found)

    continuous = mean_ttft()
    assert mean_ttft(batching="static") > 2 * continuous
    assert mean_ttft(interval_ms="20") > continuous


def test_policies_trade_ttft_for_stalls():
    """A long prompt among decoding sequences: prefill-first stalls them, small chunks stretch its own prefill."""
    few = [Request(number, 0, 100, 400) for number in range(8)] + [Request(8, SECOND, 3500, 10)]

    def run(**settings: str) -> tuple[float, float]:
        found = {x.index: x for x in simulate(build("a100", settings=settings, journal=True), few)}
        return found[8].ttft, max(max(found[number].gaps()) for number in range(8))

    whole_ttft, whole_stall = run(policy="prefill-first", chunk="0")
    small_ttft, small_stall = run(chunk="256")
    assert whole_ttft < small_ttft
    assert small_stall < whole_stall / 4


def test_limits_refill_and_write_times_as_groq_does():
    limits = RateLimits(requests=100, tokens=600)
    wait, _, headers = limits.take(500, 0.0)
    assert wait == 0
    assert headers["x-ratelimit-remaining-tokens"] == "100"
    assert headers["x-ratelimit-reset-tokens"] == "50s"
    wait, fault, headers = limits.take(200, 0.0)
    assert (wait, fault, headers["retry-after"]) == (10.0, "tokens", "10")
    assert limits.take(200, 10.0)[0] == 0
    assert [duration(s) for s in (7.66, 179.56, 3723.0, 0.0)] == ["7.66s", "2m59.56s", "1h2m3s", "0s"]
    assert RateLimits().take(10**9, 0.0) == (0.0, "", {})


def test_an_event_queue_runs_in_order_and_only_what_is_due():
    from targets.simulated.engine.job import EventQueue

    queue, seen = EventQueue(), []
    for instant, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")):
        queue.at(instant, lambda now, name: seen.append((now, name)), name)
    queue.run(2.0)
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert queue.next == 3.0
    queue.run(inf)
    assert queue.next == inf
