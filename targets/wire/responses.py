"""OpenAI responses: `POST /v1/responses`, typed events from `response.created` to `response.completed`.

Output length is held by `max_output_tokens` alone (`response.incomplete` is then the usual end). Text, reasoning and
tool-call arguments come as deltas; the `.done` events repeat them and carry nothing new.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

from ..exchange import Call, Exchange
from . import lenient
from .interface import Reader, RequestFields, Wire, merged, messages
from .openai import note_usage

ENDS = {"response.completed", "response.incomplete"}
FAILURES = {"error", "response.failed"}
TEXTS = ("summary", "content", "arguments")  # of an answer's reasoning, message or tool call


def _body(call: Call, target: RequestFields) -> dict[str, Any]:
    body = {"model": target.model, "input": messages(call), "max_output_tokens": call.max_tokens, "stream": True}
    return merged(body, target.extra_body)


class ResponsesReader(Reader):
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
            raise lenient.failure(response if response else data)
        _note(response, exchange)
        self.finished = self.finished or kind in ENDS
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.load(body)
        if data.get("error"):
            raise lenient.failure(data)
        _note(data, exchange)
        items = lenient.mappings(data.get("output"))
        return self.whole("".join(lenient.text(item.get(key)) for item in items for key in TEXTS), exchange)


def _note(response: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or lenient.name(response.get("id"))
    exchange.model = lenient.name(response.get("model")) or exchange.model
    exchange.service_tier = lenient.name(response.get("service_tier")) or exchange.service_tier
    reason = lenient.mapping(response.get("incomplete_details")).get("reason") or response.get("status")
    exchange.finish_reason = lenient.name(reason) or exchange.finish_reason
    note_usage(lenient.mapping(response.get("usage")), exchange, "input_tokens", "output_tokens")


WIRE = Wire("/v1/responses", _body, ResponsesReader)
