"""What a wire format is: the request's body out, events in. Pure: no socket, no loop, no clock.

Each format is a `Wire`. Facts in headers (request id, rate limits, retry-after) are read by
`lenient.note_headers`, an error's answer by `lenient.complaint_in`, for every answer of any format.
Everything a server sends is hostile: bounded and never trusted to have the right type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from traces.errors import InputError

from ..exchange import Call, Exchange, Outcome

Json = dict[str, Any]  # an object that a stranger wrote, or that one will read
RATE_LIMIT_STATUSES = frozenset({429, 498, 529})


class WireError(Exception):
    """An event that can't be used: `outcome` says how the exchange ends (malformed, rate_limited, http_error)."""

    def __init__(self, message: str, outcome: Outcome = Outcome.MALFORMED) -> None:
        super().__init__(message)
        self.outcome = outcome


class RequestFields(Protocol):
    """What of a target stands in each request's body."""

    @property
    def model(self) -> str: ...

    @property
    def extra_body(self) -> Json: ...

    @property
    def ignore_eos(self) -> bool | None:
        """None: as the endpoint type allows."""


class Reader:
    """The events of one answer. Facts (usage, ids, timings, finish reason) go straight onto the exchange. `feed` and
    `answer` raise WireError for what can't be understood or reports a failure of the server."""

    finished = False  # the terminator has been seen; a body that ends before it is `truncated`
    open_ended = False  # whole when its body is: the format has no terminator, or the answer said why it ends

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        """Token count of one SSE event with this data and `event:` field: 0 where it carries no token, 1 where the
        server gives no count. (Where a later event has the first one's count, `exchange.first_tokens` is corrected.)"""
        raise NotImplementedError

    def answer(self, body: bytes, exchange: Exchange) -> int:
        """The same for a whole JSON answer that is not a stream."""
        self.finished = True
        return self.feed(body, "", exchange)

    def whole(self, text: str, exchange: Exchange) -> int:
        """Token count of a whole answer with this text: its usage, else 1."""
        self.finished = True
        exchange.add_text(text)
        return exchange.usage_output or int(bool(text))


@dataclass(frozen=True)
class Wire:
    """A wire format."""

    path: str  # below the base URL; {model} is filled in
    body: Callable[[Call, RequestFields], Json]  # what is sent as JSON, the user's own fields merged into it
    reader: type[Reader]
    headers: tuple[tuple[str, str], ...] = ()
    key_header: str = ""  # carries the API key as it is; without it `Authorization: Bearer KEY`

    def request(self, call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
        """Path, headers of the format, and body. Raises InputError for a prompt that the format can't carry."""
        return self.path_for(target), list(self.headers), orjson.dumps(self.body(call, target))

    def path_for(self, target: RequestFields) -> str:
        return self.path.replace("{model}", quote(target.model, safe=""))


def merged(body: Json, own: Json) -> Json:
    """The request's body with the user's own fields over it, objects merged into objects; a null removes a field
    (JSON Merge Patch, RFC 7396)."""
    result = dict(body)
    for key, value in own.items():
        if value is None:
            result.pop(key, None)
        else:
            ours = result.get(key)
            result[key] = merged(ours if isinstance(ours, dict) else {}, value) if isinstance(value, dict) else value
    return result


def messages(call: Call) -> list[dict[str, str]]:
    """A chat's messages: the conversation so far, and the prompt as the user's. Raises InputError for token ids."""
    if not isinstance(call.prompt, str):
        raise InputError("a chat takes text, not token ids", remedy="use --endpoint-type completions")
    return [{"role": role, "content": text} for role, text in (*call.history, ("user", call.prompt))]


def prompt(call: Call) -> str:
    """The same as one text, for endpoints without a chat template."""
    if not isinstance(call.prompt, str):
        raise InputError("this endpoint type takes text, not token ids", remedy="use --endpoint-type completions")
    return "\n\n".join([*(text for _, text in call.history), call.prompt])
