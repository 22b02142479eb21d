"""A request goes out a second time only where the server's program can't have read any of it.

`bench.client_fuzz --kept` does at length what is here in a few cases.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from targets.client import http_client
from targets.client.connection import Connection
from targets.exchange import Exchange, Outcome

from .conftest import Secure, Serve
from .scripted import GOOD, Peer, Script, good


@pytest.fixture
def raced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection's close comes just after it was found to be open."""
    monkeypatch.setattr(Connection, "alive", lambda _: True)


def answers_once(farewell: Callable[[Peer], object] = lambda peer: None) -> Script:
    """Answers the first connection's first request, then says farewell and closes it; answers all of later ones."""

    def script(peer: Peer) -> None:
        if peer.number > 1:
            return good(peer)
        peer.request()
        peer.say(GOOD, 0.02)
        farewell(peer)
        return None

    return script


def second(one: Any, pause: float = 0.0) -> Exchange:
    """What comes of a second request; the loop stands still in between."""
    assert one.ask().outcome is Outcome.OK
    time.sleep(pause)
    return one.ask()


@pytest.mark.parametrize("end", [lambda peer: None, Peer.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("size", [1, 100, 1 << 16])
def test_what_was_read_is_never_sent_again(serve: Serve, caller: Any, size: int, end: Callable[[Peer], object]) -> None:
    """Read whole or in part, at once and on a used connection: it was taken, and the close is the server's failure."""
    server = serve(answers_once(lambda peer: (peer.sock.recv(size), end(peer))))
    exchange = second(caller(server.url))
    assert (exchange.outcome, exchange.reused, exchange.reconnected) == (Outcome.TRUNCATED, True, False)
    assert "before any answer" in exchange.error
    assert server.connections == 1


@pytest.mark.parametrize("end", [lambda peer: None, Peer.reset], ids=["FIN", "RST"])
def test_what_came_after_the_close_is_sent_again(
    serve: Serve, caller: Any, raced: None, end: Callable[[Peer], object]
) -> None:
    server = serve(answers_once(end))
    exchange = second(caller(server.url), 0.06)
    assert (exchange.outcome, exchange.reused, exchange.reconnected) == (Outcome.OK, False, True)
    assert exchange.started <= exchange.connected <= exchange.sent <= exchange.first_token
    assert server.connections == 2


def test_a_server_that_closes_only_its_own_side_may_read_on(serve: Serve, caller: Any, raced: None) -> None:
    """Its FIN is there first, as it is where the server closed: but its kernel acknowledges the request, and no RST."""
    server = serve(answers_once(lambda peer: (peer.sock.shutdown(socket.SHUT_WR), peer.request(), time.sleep(0.2))))
    exchange = second(caller(server.url), 0.06)
    assert (exchange.outcome, exchange.reconnected) == (Outcome.TRUNCATED, False)
    assert server.connections == 1


def test_nothing_is_sent_again_where_that_is_not_wanted(serve: Serve, caller: Any, raced: None) -> None:
    server = serve(answers_once())
    exchange = second(caller(server.url, resend=False), 0.06)
    assert (exchange.outcome, exchange.reconnected) == (Outcome.TRUNCATED, False)
    assert server.connections == 1


def test_a_connection_that_idled_for_long_is_not_used_again(
    serve: Serve, caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer on the way may have forgotten it, and would answer with an RST that proves nothing."""
    server = serve()
    one = caller(server.url)
    one.ask()
    monkeypatch.setattr(http_client, "IDLE_NS", 20_000_000)
    assert not second(one, 0.03).reused
    assert one.ask().reused


def says_goodbye(peer: Peer) -> None:
    """TLS's close_notify, then (at the connection's end) the FIN."""
    peer.sock.settimeout(0.001)
    with suppress(TimeoutError):
        peer.sock.unwrap()  # type: ignore[attr-defined]


@pytest.mark.parametrize("farewell", [lambda peer: None, says_goodbye])
def test_the_same_over_tls(secure: Secure, caller: Any, raced: None, farewell: Callable[[Peer], object]) -> None:
    server, ca_file = secure(answers_once(farewell))
    exchange = second(caller(server.url, ca_file=ca_file), 0.06)
    assert (exchange.outcome, exchange.reconnected, server.connections) == (Outcome.OK, True, 2)
    server, ca_file = secure(answers_once(lambda peer: (peer.request(), farewell(peer))))
    exchange = second(caller(server.url, ca_file=ca_file))
    assert (exchange.outcome, exchange.reconnected, server.connections) == (Outcome.TRUNCATED, False, 1)
