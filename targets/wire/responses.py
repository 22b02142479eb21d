"""OpenAI responses: `POST /v1/responses`, typed events from `response.created` to `response.completed`.

Output length is held by `max_output_tokens` alone (`response.incomplete` is then the usual end). Text, reasoning and
tool-call arguments come as deltas; the `.done` events repeat them and carry nothing new.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Call, Exchange, Outcome
from . import lenient
from .interface import RequestFields, WireError
from .openai import note_usage

ENDS = {"response.completed", "response.incomplete"}
FAILURES = {"error", "response.failed"}
TEXTS = ("summary", "content", "arguments")  # of an answer's reasoning, message or tool call


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    body = {
        "model": target.model,
        "input": lenient.messages(call),
        "max_output_tokens": call.max_tokens,
        "stream": True,
    }
    return "/v1/responses", [], orjson.dumps(lenient.merged(body, target.extra_body))


class Reader:
    """The typed events of one answer."""

    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = False

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == b"[DONE]":
            return 0
        data = lenient.load(event)
        kind = lenient.text(data.get("type"))
        if kind.endswith(".delta"):
            text = lenient.text(data.get("delta"))
            exchange.add_text(text)
            return 1 if text else 0
        response = lenient.mapping(data.get("response"))
        if kind in FAILURES:
            raise _error(response if response else data)
        _note(response, exchange)
        self.finished = self.finished or kind in ENDS
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.load(body)
        if data.get("error"):
            raise _error(data)
        _note(data, exchange)
        self.finished = True
        text = "".join(lenient.text(item.get(key)) for item in lenient.mappings(data.get("output")) for key in TEXTS)
        exchange.add_text(text)
        return exchange.usage_output or int(bool(text))


def _note(response: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or lenient.name(response.get("id"))
    exchange.model = lenient.name(response.get("model")) or exchange.model
    exchange.service_tier = lenient.name(response.get("service_tier")) or exchange.service_tier
    reason = lenient.mapping(response.get("incomplete_details")).get("reason") or response.get("status")
    exchange.finish_reason = lenient.name(reason) or exchange.finish_reason
    note_usage(lenient.mapping(response.get("usage")), exchange, "input_tokens", "output_tokens")


def _error(data: dict[str, Any]) -> WireError:
    limited = "rate_limit" in lenient.error_code(data)
    return WireError(lenient.complaint(data), Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR)
