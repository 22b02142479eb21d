"""Reads without kernel times: how far off can the client's own instants be?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from gevent.event import AsyncResult

from targets.client.http_client import HttpClient
from targets.clock import Clock
from targets.exchange import Exchange
from targets.target import Target
from tests.exchanges import make_call

from .scripted import GOOD, Peer, Scripted


def slowly(peer: Peer) -> None:
    while peer.request():
        head, end, body = GOOD.partition(b"\r\n\r\n")
        peer.say(head + end, 0.12)
        peer.say(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Scripted]:
    server = Scripted(slowly, socket.AF_UNIX, str(tmp_path / "s"))
    yield server
    server.close()


def test_brackets_are_narrow_though_the_loop_is_idle(server: Scripted) -> None:
    """An idle loop polls every 50 ms for its tick only, and the bracket would hold two of those."""
    target = HttpClient(Target("near", server.url, "m"), Clock())
    widths = []
    for index in range(5):
        over: AsyncResult[Exchange] = AsyncResult()
        target.start(make_call(index, 0, "word", 1, 2), over.set)
        exchange = over.get(timeout=10)
        assert exchange.unstamped and exchange.first_token and exchange.first_after
        widths.append((exchange.first_token - exchange.first_after) * 1e-9)
    target.close()
    assert median(widths) < 0.02
