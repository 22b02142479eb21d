"""A slice of the fuzzing that `python -m bench.client_fuzz` does at length: a hostile server, and hostile bytes."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import client_fuzz
from targets.client.answer import Answer
from targets.client.connection import Connection
from targets.client.http_client import diagnostics
from targets.client.sse import Decoder
from targets.exchange import Outcome
from targets.target import Limits
from targets.wire import WIRES
from tests.exchanges import make_exchange

from . import hostile
from .scripted import Scripted

PARTS = [b"data: a", b"data:b", b"\n", b"\r", b"\r\n", b": c", b"event: d", b"", b"\xef\xbb\xbf"]
LIMITS = Limits(connect_timeout=5, first_token_timeout=0.4, silence_timeout=0.3, request_timeout=0.8)


def test_a_hostile_server_ends_every_exchange_in_an_outcome(caller: Any) -> None:
    """400 exchanges, 80 at a time; no fault of ours among the outcomes, and all of them within their limits."""
    server = Scripted(partial(hostile.script, seed=20261121))
    one, faults = caller(server.url, limits=LIMITS), diagnostics().internal_faults
    with gevent.Timeout(30):
        while len(one.over) < 400:
            while one.started < 400 and one.started < len(one.over) + 80:
                one.start()
            gevent.sleep(0.005)
    server.close()
    outcomes = {exchange.outcome for exchange in one.over}
    assert Outcome.INTERNAL_ERROR not in outcomes, [e.error for e in one.over if e.outcome is Outcome.INTERNAL_ERROR]
    assert {Outcome.OK, Outcome.MALFORMED, Outcome.TRUNCATED, Outcome.HTTP_ERROR} <= outcomes
    assert diagnostics().internal_faults == faults
    for exchange in one.over:
        assert exchange.done - exchange.started < 5e9
        assert len(exchange.error) < 1000 and exchange.error.isprintable()


def test_no_request_that_was_read_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one lost: what was recorded was read, but for what the server closed on unread."""
    monkeypatch.setattr(Connection, "alive", Connection.alive)  # the fuzz replaces it
    assert client_fuzz.kept(1.5, 20261121, 0.0) == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(sorted(WIRES)))
def test_hostile_bytes_end_in_an_outcome(seed: int, name: str) -> None:
    """Every wire format: whatever comes, `feed` and `closed` give an End and raise nothing."""
    dice = random.Random(seed)
    wire: Any = WIRES[name]
    exchange = make_exchange(0, "", 0, 1, 1, sent=0)
    answer = Answer(exchange, wire.reader(), 0)
    end = None
    for at, piece in enumerate(hostile.pieces(dice, hostile.answer(dice)), 1):
        end = None if answer.quick(piece, at, at) else answer.feed(piece, at, at)
        if end is not None:
            break
    outcome, error, _ = end or answer.closed("closed", 1 << 20, 1 << 20)
    assert isinstance(outcome, Outcome) and isinstance(error, str)
    assert len(exchange.token_at) == len(exchange.token_events)
    answer.close()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS)), st.randoms(use_true_random=False))
def test_cuts_change_nothing(parts: list[bytes], dice: random.Random) -> None:
    raw = b"".join(parts)
    whole = Decoder()
    expected = whole.feed(raw) + whole.finish()
    decoder, events = Decoder(), []
    for piece in hostile.pieces(dice, raw):
        events += decoder.feed(piece)
    assert events + decoder.finish() == expected
