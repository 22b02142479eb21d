"""TGI's own stream: `POST /generate_stream`, one event a token, the last one with `generated_text` and `details`.

Output length is held by `max_new_tokens` alone. There is no [DONE].
Source: text-generation-inference, router/src/lib.rs (StreamResponse, StreamDetails).
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Call, Exchange, Outcome
from . import lenient
from .interface import RequestFields, WireError


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    parameters = {"max_new_tokens": call.max_tokens, "details": True}
    body = {"inputs": lenient.prompt(call), "parameters": parameters, "stream": True}
    return "/generate_stream", [], orjson.dumps(lenient.merged(body, target.extra_body))


class Reader:
    """The events of one answer."""

    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = False

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = lenient.load(event)
        if data.get("error"):
            raise WireError(lenient.complaint(data), _outcome(data))
        _note(lenient.mapping(data.get("details")), exchange)
        self.finished = self.finished or data.get("generated_text") is not None
        token = data.get("token")
        if not isinstance(token, dict):
            return 0
        exchange.add_text(lenient.text(token.get("text")))
        return 1

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.load(body)
        if data.get("error"):
            raise WireError(lenient.complaint(data), _outcome(data))
        _note(lenient.mapping(data.get("details")), exchange)
        self.finished = True
        text = lenient.text(data.get("generated_text"))
        exchange.add_text(text)
        return exchange.usage_output or int(bool(text))


def _note(details: dict[str, Any], exchange: Exchange) -> None:
    lenient.note(
        exchange,
        finish_reason=lenient.name(details.get("finish_reason")),
        usage_output=lenient.total(details.get("generated_tokens")),
        usage_prompt=lenient.count(details.get("input_length")),
    )


def _outcome(data: dict[str, Any]) -> Outcome:
    return Outcome.RATE_LIMITED if data.get("error_type") == "overloaded" else Outcome.HTTP_ERROR
