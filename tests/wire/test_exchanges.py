"""Documented and recorded answers of every protocol give the same facts, whole, byte by byte and split anywhere.

A new one is a table in `exchanges/TYPE.toml`; `phaseload record URL` writes it from a live server.
"""

import json
import tomllib
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targets.recording import Recording, facts, free_name, recording, replay
from targets.target import Target
from targets.wire import WIRES, WireError
from tests.exchanges import make_call, make_exchange
from traces.errors import InputError

EXCHANGES = {
    (path.stem, name): table
    for path in sorted((Path(__file__).parent / "exchanges").glob("*.toml"))
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items()
}
NO_ERROR_INSIDE: set[str] = set()  # types that report no error once an answer of status 200 has begun
every_exchange = pytest.mark.parametrize(
    ("kind", "table"), [(kind, table) for (kind, _), table in EXCHANGES.items()], ids=["-".join(k) for k in EXCHANGES]
)


@every_exchange
def test_whole(kind, table):
    assert facts(replay(WIRES[kind], recording(table))) == table["facts"]


@every_exchange
def test_byte_by_byte(kind, table):
    answer = recording(table)
    pieces = [answer.body[i : i + 1] for i in range(len(answer.body))]
    assert facts(replay(WIRES[kind], answer, pieces)) == table["facts"]


@every_exchange
def test_other_line_ends(kind, table):
    for end in (b"\r\n", b"\r"):
        answer = recording(table)
        answer = type(answer)(answer.status, answer.body.replace(b"\n", end), answer.headers)
        assert facts(replay(WIRES[kind], answer)) == table["facts"]


@settings(max_examples=60, deadline=None)
@given(case=st.sampled_from(sorted(EXCHANGES)), data=st.data())
def test_split_anywhere(case, data):
    answer = recording(EXCHANGES[case])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer.body)), max_size=6)))
    edges = [0, *cuts, len(answer.body)]
    pieces = [answer.body[start:end] for start, end in pairwise(edges)]
    assert facts(replay(WIRES[case[0]], answer, pieces)) == EXCHANGES[case]["facts"]


@pytest.mark.parametrize("kind", WIRES)
def test_every_type_has_a_good_stream_and_an_error_inside_one(kind):
    outcomes = {
        table["facts"]["outcome"] for (type_, _), table in EXCHANGES.items() if type_ == kind and table["status"] == 200
    }
    assert "ok" in outcomes
    assert outcomes & {"http_error", "rate_limited"} or kind in NO_ERROR_INSIDE


@every_exchange
def test_the_text_that_is_kept_is_all_of_it(kind, table, monkeypatch):
    monkeypatch.setattr("targets.recording.EMPTY", make_exchange(text=[]))
    exchange = replay(WIRES[kind], recording(table))
    assert exchange.chars == len(exchange.take_text() or "")


@pytest.mark.parametrize("kind", WIRES)
def test_a_request_for_no_token_asks_for_one(kind):
    none, one, two = (
        WIRES[kind].request(make_call(0, 0, "hello", 1, tokens), Target("x", "http://h", "m")) for tokens in (0, 1, 2)
    )
    assert none == one != two


@every_exchange
def test_a_table_survives_being_written(kind, table):
    answer = recording(table)
    written = tomllib.loads(answer.table("again", table["facts"]))["again"]
    assert written["facts"] == table["facts"]
    assert facts(replay(WIRES[kind], recording(written))) == table["facts"]


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"data: \xff\xfe\r\n\r\n'''\x00")
@example(b"data: a\r\rdata: ''")
def test_any_body_is_written_byte_for_byte(body):
    written = Recording(200, body).table("one", {})
    assert recording(tomllib.loads(written)["one"]).body == body


def test_a_second_table_of_a_name_gets_a_number():
    text = Recording(200, b"one").table("stream", {})
    assert free_name("stream", text, "f") == "stream-2"
    text += Recording(200, b"two").table("stream-2", {})
    assert free_name("stream", text, "f") == "stream-3" and free_name("other", text, "f") == "other"
    with pytest.raises(InputError, match="f: not TOML"):
        free_name("stream", "[", "f")


def events(kind):
    """The JSON values that a type's answers hold in a line, after its `data:`, or as a whole."""
    for body in (recording(table).body for (type_, _), table in EXCHANGES.items() if type_ == kind):
        for piece in (body, *body.splitlines()):
            with suppress(ValueError):
                yield json.loads(piece.removeprefix(b"data:"))


def names(value):
    """All keys inside a JSON value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set(value if isinstance(value, dict) else ()).union(*map(names, inner))


# The fields come from the recorded answers, so that a new format is covered by itself.
EVENTS = {kind: list(events(kind)) for kind in WIRES}


KEYS = st.sampled_from(sorted(names(list(EVENTS.values()))))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)
HOSTILE = (None, True, -1, 2**63, 1e300, "", "\0" * 2000, [], [None], [5], [[]], [{}], {}, {"a": None})


def damaged(value):
    """The value with each value in it, at any depth, left out or replaced by each hostile one."""
    yield from HOSTILE
    for at in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for inner in damaged(value[at]):
            copy = value.copy()
            copy[at] = inner
            yield copy
        copy = value.copy()
        del copy[at]
        yield copy


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(WIRES)), event=st.dictionaries(KEYS, VALUES, max_size=8), name=st.text(max_size=5))
def test_nothing_that_a_server_sends_is_an_error_of_ours(kind, event, name):
    read("feed", kind, json.dumps(event).encode(), name)


@pytest.mark.parametrize("kind", WIRES)
def test_no_recorded_event_with_a_damaged_value_is_an_error_of_ours(kind):
    for event in EVENTS[kind]:
        name = event.get("type", "") if isinstance(event, dict) else ""
        for body in {json.dumps(each) for each in damaged(event)}:
            read("feed", kind, body.encode(), name)
            read("answer", kind, body.encode())


def read(method, kind, *arguments):
    """By `feed` or `answer` of the type's reader: what comes out is bounded and of the right type."""
    exchange = make_exchange(0, "", 0, 1, 1)
    try:
        tokens = getattr(WIRES[kind].reader(), method)(*arguments, exchange)
    except WireError as error:
        assert len(str(error)) < 1000
    else:
        assert isinstance(tokens, int) and tokens >= 0
    for field in ("request_id", "model", "fingerprint", "finish_reason", "prefill_worker"):
        value = getattr(exchange, field)
        assert value is None or (isinstance(value, str) and len(value) <= 200 and value.isprintable())
    for field in ("server_queue", "server_prefill", "server_ttft", "server_total"):
        value = getattr(exchange, field)
        assert value is None or 0 <= value < 1e7
