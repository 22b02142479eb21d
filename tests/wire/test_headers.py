"""Facts in headers: what to wait, which limits."""

from datetime import UTC, datetime

import pytest

from targets.wire import lenient
from tests.exchanges import make_exchange

RECEIVED = datetime(2026, 11, 21, 1, 16, 47, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 01:17:47 GMT", "date": "Sat, 21 Nov 2026 01:16:47 GMT"}, 60.0),
        ({"retry-after": "Sat, 21 Nov 2026 01:15:47 GMT", "date": "Sat, 21 Nov 2026 01:16:47 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 01:16:57 GMT"}, 10.0),  # no `date`: from when it came
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "9" * 40}, None),
        ({"retry-after-ms": "nan"}, None),
    ],
)
def test_retry_after(given, seconds):
    assert lenient.retry_after(given, RECEIVED) == seconds


def test_limits():
    groq = {"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "18000"}
    anthropic = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-output-tokens-limit": "8000"}
    assert lenient.rate_limits(groq) == {"requests": 14400, "tokens": 18000}
    assert lenient.rate_limits(anthropic) == {"requests": 50, "output-tokens": 8000}
    assert lenient.rate_limits({"x-ratelimit-limit-requests": "lots"}) == {}


def test_what_is_kept_is_bounded():
    exchange = make_exchange(0, "", 0, 1, 1)
    flood = {f"x-ratelimit-{i}": "x" * 10_000 for i in range(1000)}
    lenient.note_headers(flood | {"x-request-id": "r\n\x1b[31m" * 1000}, exchange, RECEIVED)
    assert exchange.ratelimit is not None and len(exchange.ratelimit) < 2000
    assert exchange.request_id is not None and len(exchange.request_id) <= 200 and exchange.request_id.isprintable()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"detail": [{"loc": ["body", "stream_options"], "msg": "not permitted"}]}', "stream_options: not permitted"),
        (b'{"detail": [{"loc": ["body", "a", 0], "msg": "odd"}]}', "a.0: odd"),
        (b'{"detail": [{"loc": 3, "msg": ["x"]}]}', "['x']"),
        (b'{"error": [{"loc": []}]}', "{'loc': []}"),
        (b'{"error": {"message": "no\\u001b[31m"}}', "no [31m"),
        (b'data: {"error": {"message": "no\\nsuch <b>thing</b>"}}\n\n', "no such thing"),
        (b'{"error": "no end of <think> in <|im_start|>"}', "no end of <think> in <|im_start|>"),
    ],
)
def test_what_an_error_says(body, says):
    assert lenient.complaint_in(body) == says
