"""The client against a server whose emission instants are known."""

from __future__ import annotations

from typing import Any

from targets.client import diagnostics
from targets.exchange import Outcome


def test_instants_are_the_servers_own(truth: Any, caller: Any) -> None:
    """Loose limits: this is not the benchmark, only the proof that the instants are those of the writes."""
    asked = {"ttft_s": 0.05, "gap_s": 0.01, "tokens": 20}
    one = caller(truth.url, extra_body={"truth": asked})
    for _ in range(8):
        one.start()
    exchanges = sorted(one.wait(), key=lambda e: e.first_token)
    records = sorted(truth.stop(), key=lambda r: r["first"])
    for exchange, record in zip(exchanges, records, strict=True):
        assert exchange.outcome is Outcome.OK, exchange.error
        assert sum(exchange.token_events) == exchange.usage_output == 20
        assert exchange.first_after <= exchange.first_token
        assert exchange.last_after <= exchange.last_token
        assert exchange.due <= exchange.started <= exchange.connected <= exchange.sent <= exchange.body_sent
        assert exchange.sent <= record["received"] - one.clock.origin <= exchange.first_token
        assert 0 <= exchange.first_token + one.clock.origin - record["first"] < 5_000_000
        assert 0 <= exchange.last_token + one.clock.origin - record["last"] < 5_000_000
        assert exchange.unstamped == 0


def test_connections_are_used_again(truth: Any, caller: Any) -> None:
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.001, "gap_s": 0, "tokens": 3}})
    opened = diagnostics()["connections_opened"]
    assert [one.ask().reused for _ in range(5)] == [False, True, True, True, True]
    assert diagnostics()["connections_opened"] == opened + 1


def test_a_user_who_leaves_is_noticed_by_the_server(truth: Any, caller: Any) -> None:
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.01, "gap_s": 0.005, "tokens": 200}})
    exchange = one.ask(leave_after=5)
    assert exchange.outcome is Outcome.CANCELLED
    assert 5 <= sum(exchange.token_events) < 20
    one.ask(leave_after=1)  # a later request: by then the server has written to the closed socket
    assert truth.stop()[0]["left"] is True
