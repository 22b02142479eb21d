"""Recorded answers: one exchange as a TOML table, read again through the wire format that it belongs to.

`phaseload record` writes such a table from a live server; beside documented ones in `tests/wire/exchanges/` it is a
test that the same bytes, whole or split anywhere, always give the same facts. It has the keys source, status, headers,
body (`body_base64` where that is not UTF-8) and facts.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from traces.errors import InputError
from traces.files import toml
from traces.request import NS_PER_S, Request

from .client.blocking import Within, exchange
from .client.disaggregated import connect
from .client.http import HttpError
from .client.http_client import HttpClient
from .client.sse import Decoder, SseError
from .clock import Clock, monotonic_ns
from .exchange import Call, Exchange, Outcome
from .rules import Limits
from .target import Target
from .wire import RATE_LIMIT_STATUSES, Reader, Wire, WireError
from .wire.lenient import complaint_in, note_headers

EMPTY = Exchange(Call(request=Request(0, 0, 0, 0), target="", due=0))
KEPT_HEADERS = re.compile(r"content-type|date|retry-after.*|(x-|anthropic-)?ratelimit-.*|.*request-id|.*region")


@dataclass(frozen=True)
class Recording:
    """An answer as it came, its transfer encoding undone."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def table(self, name: str, facts: Mapping[str, Any]) -> str:
        """The TOML table. Of the headers only those that a wire format reads are kept."""
        kept = {key: value for key, value in self.headers.items() if KEPT_HEADERS.fullmatch(key)}
        lines = [f"[{_key(name)}]", f"source = {_value(self.source)}", f"status = {self.status}"]
        lines += [f"headers = {_value(kept)}", _body(self.body), f"facts = {_value(dict(facts))}"]
        return "\n".join(lines) + "\n"


def recording(table: Mapping[str, Any]) -> Recording:
    """What `Recording.table` wrote (or a person)."""
    given = {key: table[key] for key in ("status", "headers", "source") if key in table}
    encoded = table.get("body_base64")
    return Recording(body=table["body"].encode() if encoded is None else base64.b64decode(encoded), **given)


def free_name(name: str, text: str, where: str) -> str:
    """The name, with a number where the text of a file has such a table already. Raises InputError."""
    taken = toml(text, where, "record into another file")
    return next(free for free in chain([name], (f"{name}-{number}" for number in count(2))) if free not in taken)


def replay(wire: Wire, answer: Recording, pieces: Iterable[bytes] | None = None) -> Exchange:
    """The exchange that an answer makes, read in these pieces (default: whole). `token_events` has an entry for each
    event with tokens, and it has their counts; there are no instants."""
    exchange = dataclasses.replace(EMPTY, status=answer.status)
    note_headers(answer.headers, exchange)
    exchange.token_events = type(EMPTY.token_events)("i")
    if answer.status != 200:
        limited = answer.status in RATE_LIMIT_STATUSES
        exchange.outcome = Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR
        exchange.error = complaint_in(answer.body)
        return exchange
    reader = wire.reader()
    try:
        for tokens in _read(reader, answer, [answer.body] if pieces is None else pieces, exchange):
            if tokens:
                exchange.token_events.append(tokens)
        whole = reader.finished or reader.open_ended
        exchange.outcome = Outcome.OK if whole else Outcome.TRUNCATED
    except WireError as error:
        exchange.outcome, exchange.error = error.outcome, str(error)
    except SseError as error:
        exchange.outcome, exchange.error = Outcome.MALFORMED, str(error)
    return exchange


def _read(reader: Reader, answer: Recording, pieces: Iterable[bytes], exchange: Exchange) -> Iterable[int]:
    if "json" in answer.headers.get("content-type", ""):
        yield reader.answer(b"".join(pieces), exchange)
        return
    decoder = Decoder()
    for piece in pieces:
        for data, name in decoder.feed(piece):
            yield reader.feed(data, name, exchange)
    for data, name in decoder.finish():
        yield reader.feed(data, name, exchange)


def facts(exchange: Exchange) -> dict[str, Any]:
    """The fields of a replayed exchange that its answer filled. `tokens`: the count of each event."""
    filled = {"outcome": str(exchange.outcome), "tokens": exchange.token_events.tolist()}
    for name in (f.name for f in dataclasses.fields(Exchange)):
        value = getattr(exchange, name)
        if name not in ("outcome", "status", "token_events") and value != getattr(EMPTY, name):
            filled[name] = value
    return filled


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _body(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"body_base64 = {_value(base64.b64encode(body).decode())}"
    if "'''" in text or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        return f"body = {_value(text)}"
    return f"body = '''\n{text}'''"


class _WithinLimits(Within):
    """A target's limits, as a run has them: what is no token (a ping) ends no wait for one."""

    def __init__(self, limits: Limits, wire: Wire) -> None:
        super().__init__(limits.request_timeout)
        self._limits, self._reader, self._decoder = limits, wire.reader(), Decoder()
        self._exchange = dataclasses.replace(EMPTY)
        self._wait(limits.connect_timeout, "no connection")

    def _wait(self, seconds: float, without: str) -> None:
        self._next = monotonic_ns() + round(seconds * NS_PER_S), f"{without} within {seconds:g} s"

    def sent(self) -> None:
        self._wait(self._limits.first_token_timeout, "no first token")

    def received(self, piece: bytes) -> None:
        with suppress(WireError, SseError):  # whoever reads the recording reports what is wrong with it
            events = self._decoder.feed(piece)
            if sum(self._reader.feed(data, name, self._exchange) for data, name in events):
                self._wait(self._limits.silence_timeout, "no further token")

    def limit(self) -> tuple[int, str]:
        return min(super().limit(), self._next)


def record(target: Target, prompt: str, tokens: int, source: str = "") -> tuple[Recording, Exchange]:
    """A target's answer to one prompt, and what our reader finds in it. `source`: which server it is, for the record.
    Raises InputError where there is no answer."""
    call = Call(request=Request(0, 0, len(prompt.split()), tokens), target=target.name, due=0, prompt=prompt)
    client = connect(target, Clock())
    if not isinstance(client, HttpClient):
        raise InputError("can be recorded on one leg only", where=target.url)
    path, own, body = client.wire.request(call, target)
    payload = client.head.payload(path, [*own, ("Connection", "close")], body)
    try:
        response, answer = exchange(client.address, payload, _WithinLimits(target.limits, client.wire), client.tls)
    except TimeoutError as error:
        raise InputError(str(error), where=target.url) from None
    except (OSError, HttpError) as error:
        raise InputError(f"no answer: {error}", where=target.url) from None
    finally:
        client.close()
    headers = {name: client.head.clean(value) for name, value in response.headers.items()}
    answer = client.head.clean(answer.decode("latin-1")).encode("latin-1")  # each byte a character, and back
    recording = Recording(response.status, answer, headers, source)
    return recording, replay(client.wire, recording)
