"""A stream that goes by its frame gives the same exchange as one that is parsed all the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targets.client.answer import Answer
from targets.client.fast_path import head, learn
from targets.exchange import Exchange, Outcome
from targets.wire import WIRES, Wire, custom
from tests.exchanges import make_exchange

from .wire_cases import DONE, HEAD, frame

TEXTS = st.text(max_size=6) | st.sampled_from(
    [" word", " the", "é", "🙂", '"', "\\", "\n", " ", "", "\x7f", "a", "\u200b"]
)
CHAT = WIRES["chat"]
KEYS = st.sampled_from(["content", "reasoning_content", "text", "role"])


@st.composite
def events(draw: Any) -> bytes:
    """One event: mostly like the others of its stream, sometimes not."""
    text = draw(TEXTS) if draw(st.integers(0, 2)) == 0 else " word"
    delta = {draw(KEYS) if draw(st.integers(0, 9)) == 0 else "content": text}
    event: dict[str, Any] = {"id": draw(st.sampled_from(["a", "a", "a", "b"])), "choices": [{"delta": delta}]}
    if draw(st.integers(0, 9)) == 0:
        event["usage"] = {"completion_tokens": draw(st.integers(0, 9))}
    if draw(st.integers(0, 19)) == 0:
        event["choices"][0]["finish_reason"] = draw(st.sampled_from([None, "stop", "length"]))
    space = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    data = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=space).encode("utf-8", "surrogatepass")
    special = draw(st.integers(0, 29))
    if special == 0:
        return b": ping\n\n"
    if special == 1:
        return b"data: " + data[:-1] + b"\xff\n\n"
    if special == 2:  # broken by one byte, inside the text or elsewhere
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from([b'"', b"\\", b"\n", b"\x01", b"\xc3", b"{"])) + data[at:]
    return b"data: " + data + b"\n\n"


@st.composite
def streams(draw: Any) -> list[bytes]:
    """The reads of one answer: one chunk each, but some split, some merged."""
    size = draw(st.sampled_from(["x", "x", "X", "04x"]))
    chunks = [frame(event, size) for event in draw(st.lists(events(), max_size=30))]
    chunks.append(frame(DONE.encode()) + b"0\r\n\r\n")
    reads = [HEAD + b"Transfer-Encoding: chunked\r\n\r\n"]
    for chunk in chunks:
        match draw(st.integers(0, 9)):
            case 0:
                cut = draw(st.integers(0, len(chunk)))
                reads += [chunk[:cut], chunk[cut:]]
            case 1:
                reads[-1] += chunk
            case _:
                reads.append(chunk)
    return [read for read in reads if read]


def exchange_of(reads: list[bytes], wire: Any, *, framed: bool, leave_after: int | None = None) -> tuple[Exchange, int]:
    exchange = make_exchange(sent=0, leave_after=leave_after)
    answer = Answer(exchange, wire.reader(), 0)
    if not framed:
        answer._lessons = 0
    for at, read in enumerate(reads, 1):
        if answer.quick(read, at, at - 1):
            continue
        end = answer.feed(read, at, at - 1)
        if end is not None:
            exchange.outcome, exchange.error, exchange.done = end
            break
    exchange.first_after, exchange.last_after = answer.first_after, answer.last_after
    return exchange, answer.fast


def own(**answer: Any) -> Wire:
    paths = {"text": "choices.0.delta.content", "end": "[DONE]", **answer}
    return custom.parse({"path": "/x", "body": {"p": "{prompt}"}, "answer": paths}, "own.toml")


OWN = [own(), own(cumulative=True), own(tokens="usage.completion_tokens"), own(finish_reason="id", ended="usage")]


@settings(max_examples=400, deadline=None)
@given(streams(), st.none() | st.integers(1, 20), st.sampled_from([CHAT, WIRES["sglang"], *OWN, *WIRES.values()]))
@example([HEAD + b"Transfer-Encoding: chunked\r\n\r\n\xef\xbb\xbf"], None, CHAT)
def test_both_ways_give_the_same_exchange(reads: list[bytes], leave_after: int | None, wire: Any) -> None:
    framed, _ = exchange_of(reads, wire, framed=True, leave_after=leave_after)
    parsed, fast = exchange_of(reads, wire, framed=False, leave_after=leave_after)
    assert framed == parsed
    assert fast == 0


def plain(texts: list[str], **more: Any) -> list[bytes]:
    chunks = [json.dumps({"choices": [{"delta": {"content": text}}], **more}, ensure_ascii=False) for text in texts]
    reads = [frame(f"data: {chunk}\n\n".encode()) for chunk in chunks]
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *reads, frame(DONE.encode()) + b"0\r\n\r\n"]


def test_most_of_a_stream_goes_by_its_frame() -> None:
    exchange, fast = exchange_of(plain([" word"] * 100 + ["é🙂"] * 10), CHAT, framed=True)
    assert fast == 109, "all but the token that taught it"
    assert (exchange.outcome, exchange.chars, sum(exchange.token_events)) == (Outcome.OK, 520, 110)


def test_so_does_a_stream_of_ones_own_format() -> None:
    exchange, fast = exchange_of(plain([" word"] * 100), own(), framed=True)
    assert (exchange.outcome, exchange.chars, fast) == (Outcome.OK, 500, 99)
    exchange, fast = exchange_of(plain(["a" * count for count in range(1, 100)]), own(cumulative=True), framed=True)
    assert (exchange.outcome, exchange.chars, fast) == (Outcome.OK, 99, 0), "each text holds the one before"


def test_so_do_reads_of_several_tokens() -> None:
    """A client that fell behind catches up: the chunks that waited cost no more than those that didn't."""
    head, *chunks, last = plain([" word"] * 99)
    reads = [head, *(b"".join(chunks[at : at + 3]) for at in range(0, 99, 3)), last]
    exchange, fast = exchange_of(reads, CHAT, framed=True)
    assert (exchange.token_events.tolist(), fast) == ([3] * 33, 32)


def test_a_stamp_that_changes_is_learnt_anew() -> None:
    """`created` counts seconds: two lessons, not a hundred parses."""
    head, *first, _ = plain([" word"] * 50, created=1)
    _, *second = plain([" word"] * 50, created=2)
    assert exchange_of([head, *first, *second], CHAT, framed=True)[1] == 98


def test_facts_stay_in_the_order_of_the_stream() -> None:
    """After an event of another kind, one fitting event is parsed again: the last id is the one that holds."""
    head, *first, last = plain([" word"] * 9, id="a")
    _, other, _ = plain([""], id="b")
    exchange, fast = exchange_of([head, *first, other, *first, last], CHAT, framed=True)
    assert (exchange.request_id, fast) == ("a", 16)


@pytest.mark.parametrize("byte", [b'"', b"\\", b"\x01", b"\x1f", b"\xff"])
def test_a_byte_that_breaks_the_text_breaks_the_answer(byte: bytes) -> None:
    head, first, second, third, _ = plain([" word"] * 3)
    broken = third.replace(b" word", b" wo" + byte + b"d")
    assert exchange_of([head, first, second, broken], CHAT, framed=True)[0].outcome is Outcome.MALFORMED


def test_no_frame_after_the_terminator() -> None:
    """What comes after it doesn't count, however plain it is: not in its read, and not in the next."""
    head, first, second, last = plain([" word"] * 2)
    done = frame(DONE.encode())
    exchange, fast = exchange_of([head, first, second + done + first, second, last], CHAT, framed=True)
    assert (sum(exchange.token_events), fast) == (2, 0)
    exchange, fast = exchange_of([head, *plain([" word"] * 9, last=True)[1:]], own(ended="last"), framed=True)
    assert (sum(exchange.token_events), fast) == (1, 0)


def test_no_frame_for_a_reader_that_counts_otherwise() -> None:
    """SGLang's text is cumulative: the next event's text says nothing about its tokens."""
    event = json.dumps({"text": " a", "meta_info": {"completion_tokens": 1}}).encode()
    assert learn(frame(b"data: " + event + b"\n\n"), WIRES["sglang"].reader) is None


def test_no_frame_for_a_text_that_is_there_twice() -> None:
    event = b'data: {"choices": [{"text": "a", "delta": {"content": "b"}}]}\n\n'
    assert learn(frame(event), CHAT.reader) is None


def test_size_lines() -> None:
    for size in range(1, 5000):
        assert head(len(b"%x\r\n" % size) + size + 2, False) == b"%x\r\n" % size
    assert [head(length, False) for length in (0, 3, 4, 5, 21)] == [b""] * 5, "no chunk is that long"
    assert head(0xAB + 6, True) == b"AB\r\n"
