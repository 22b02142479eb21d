"""The client against a server whose emission instants are known."""

from __future__ import annotations

from typing import Any

from targets.client.http_client import diagnostics
from targets.exchange import Outcome


def test_instants_are_the_servers_own(truth: Any, caller: Any) -> None:
    """No instant before its write, and half of them within milliseconds of it: the benchmark is elsewhere, and a busy
    machine may preempt the server between its look at the clock and its write."""
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.05, "gap_s": 0.01, "tokens": 20}})
    for index in range(9):
        one.start(prompt=f"request {index}")
    exchanges = {f"request {exchange.index}": exchange for exchange in one.wait()}
    errors = []
    for record in truth.stop():
        exchange = exchanges[record["id"]]
        assert exchange.outcome is Outcome.OK, exchange.error
        assert sum(exchange.token_events) == exchange.usage_output == 20
        assert exchange.sent <= exchange.first_after <= exchange.first_token
        assert exchange.last_after <= exchange.last_token
        assert exchange.due <= exchange.started <= exchange.connected <= exchange.sent <= exchange.body_sent
        assert exchange.sent <= record["received"] - one.clock.origin <= exchange.first_token
        assert exchange.unstamped == 0
        errors += [exchange.first_token + one.clock.origin - record["first"]]
        errors += [exchange.last_token + one.clock.origin - record["last"]]
    assert len(errors) == 18
    assert min(errors) >= 0
    assert sorted(errors)[9] < 5_000_000


def test_connections_are_used_again(truth: Any, caller: Any) -> None:
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.001, "gap_s": 0, "tokens": 3}})
    opened = diagnostics().connections_opened
    assert [one.ask().reused for _ in range(5)] == [False, True, True, True, True]
    assert diagnostics().connections_opened == opened + 1


def test_a_user_who_leaves_is_noticed_by_the_server(truth: Any, caller: Any) -> None:
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.01, "gap_s": 0.005, "tokens": 200}})
    exchange = one.ask(leave_after=5)
    assert exchange.outcome is Outcome.CANCELLED
    assert 5 <= sum(exchange.token_events) < 20
    one.ask(leave_after=1)  # a later request: by then the server has written to the closed socket
    assert truth.stop()[0]["left"] is True
