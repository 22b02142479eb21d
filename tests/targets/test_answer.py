"""The answer's whole way, from bytes to the exchange: one table, fed whole, byte by byte and in random splits."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable
from typing import Any

import pytest

from targets.client.answer import Answer
from targets.client.http import HttpError, Response
from targets.client.sse import Decoder, SseError
from targets.exchange import Exchange, Outcome
from targets.wire import WIRES
from tests.exchanges import make_exchange

from .wire_cases import CASES, FINISH, HEAD, TWO, Case, frame

ORIGIN = 1_700_000_000 * 10**9
SEEDS = 12


def read(case: Case, pieces: Iterable[bytes]) -> Exchange:
    """The exchange that the case's pieces make, each arriving a millisecond after the one before."""
    exchange = make_exchange(0, "", 0, 1, 2, sent=0)
    answer = Answer(exchange, WIRES["chat"].reader(), ORIGIN)
    end = None
    at = ORIGIN
    for piece in pieces:
        at += 1_000_000
        end = answer.feed(piece, at, at - 500_000) if not answer.quick(piece, at, at - 500_000) else None
        if end is not None:
            break
    if end is None and (case.closes or answer.finished_at is not None):
        end = answer.closed("closed", at, at)
    assert end is not None, "still waiting"
    exchange.outcome, exchange.error, at = end
    answer.close()
    return exchange


def check(case: Case, exchange: Exchange) -> None:
    assert exchange.outcome == Outcome(case.outcome), exchange.error
    assert (sum(exchange.token_events), exchange.chars) == (case.events, case.chars)
    assert case.says in exchange.error
    assert {name: getattr(exchange, name) for name in case.facts} == case.facts
    assert len(exchange.token_at) == len(exchange.token_events)
    assert list(exchange.token_at) == sorted(exchange.token_at)


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({*cuts, len(raw)})
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_however_it_is_cut(case: Case) -> None:
    check(case, read(case, [case.raw] if case.raw else []))
    check(case, read(case, (case.raw[i : i + 1] for i in range(len(case.raw)))))
    for seed in range(SEEDS):
        dice = random.Random(f"{case.name} {seed}")
        cuts = [dice.randrange(len(case.raw) + 1) for _ in range(dice.choice([1, 2, 5, 20]))]
        check(case, read(case, split(case.raw, cuts)))


def test_the_table_is_no_smaller_than_promised() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_finish_reason_before_a_reset_completes_nothing() -> None:
    exchange = make_exchange(0, "", 0, 1, 2, sent=0)
    answer = Answer(exchange, WIRES["chat"].reader(), ORIGIN)
    assert answer.feed(HEAD + b"\r\n" + (TWO + FINISH).encode(), ORIGIN, ORIGIN) is None
    outcome, error, _ = answer.closed("Connection reset by peer", ORIGIN, ORIGIN)
    assert (outcome, error) == (Outcome.TRUNCATED, "connection Connection reset by peer in mid-answer")


def test_a_read_with_several_events_is_one_entry() -> None:
    case: Any = next(case for case in CASES if case.name == "line feeds")
    exchange = read(case, [case.raw])
    assert list(exchange.token_events) == [2]
    assert exchange.tpot is None


def test_an_event_of_many_lines_costs_what_its_bytes_cost() -> None:
    """Fed line by line: the time of each line must not grow with those that wait."""

    def cost(lines: int) -> float:
        decoder, started = Decoder(), time.process_time()
        for _ in range(lines):
            decoder.feed(b"data: a\n")
        return (time.process_time() - started) / lines

    assert min(cost(40_000) for _ in range(3)) < 5 * min(cost(400) for _ in range(3))


@pytest.mark.parametrize("line", [b"data: a\n", b"data\n", b"data: " + b"x" * 1000 + b"\n", b"x" * 1000])
def test_what_waits_is_bounded(line: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(SseError, match="longer than"):
        for _ in range(10_000_000):
            decoder.feed(line)


def test_a_body_that_inflates_for_ever_is_given_up() -> None:
    comments = zlib.compressobj(wbits=31)
    response = Response()
    response.feed(HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(HttpError, match="compressed body of more than"):
        for _ in range(1000):
            piece = comments.compress(b": ping\n\n" * 100_000) + comments.flush(zlib.Z_SYNC_FLUSH)
            response.feed(frame(piece))
