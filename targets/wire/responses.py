"""OpenAI responses: `POST /v1/responses`, typed events from `response.created` to `response.completed`.

Output length is held by `max_output_tokens` alone (`response.incomplete` is then the usual end). Text, reasoning and
tool-call arguments come as deltas; the `.done` events repeat them and carry nothing new.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Exchange, Outcome
from ..target import Ask, Spec
from . import WireError, facts
from .openai import note_usage

ENDS = {"response.completed", "response.incomplete"}
FAILURES = {"error", "response.failed"}
TEXTS = ("summary", "content", "arguments")  # of an answer's reasoning, message or tool call


def request(ask: Ask, spec: Spec) -> tuple[str, list[tuple[str, str]], bytes]:
    body = {
        "model": spec.model,
        "input": facts.messages(ask),
        "max_output_tokens": ask.tokens,
        "stream": True,
    }
    return "/v1/responses", [], orjson.dumps(facts.merged(body, spec.extra_body))


class Reader:
    """The typed events of one answer."""

    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = False

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == b"[DONE]":
            return 0
        data = facts.load(event)
        kind = facts.text(data.get("type"))
        if kind.endswith(".delta"):
            text = facts.text(data.get("delta"))
            exchange.hear(text)
            return 1 if text else 0
        response = facts.mapping(data.get("response"))
        if kind in FAILURES:
            raise _error(response if response else data)
        _note(response, exchange)
        self.finished = self.finished or kind in ENDS
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = facts.load(body)
        if data.get("error"):
            raise _error(data)
        _note(data, exchange)
        self.finished = True
        text = "".join(facts.text(item.get(key)) for item in facts.mappings(data.get("output")) for key in TEXTS)
        exchange.hear(text)
        return exchange.usage_output or int(bool(text))


def _note(response: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or facts.name(response.get("id"))
    exchange.model = facts.name(response.get("model")) or exchange.model
    exchange.service_tier = facts.name(response.get("service_tier")) or exchange.service_tier
    reason = facts.mapping(response.get("incomplete_details")).get("reason") or response.get("status")
    exchange.finish_reason = facts.name(reason) or exchange.finish_reason
    note_usage(facts.mapping(response.get("usage")), exchange, "input_tokens", "output_tokens")


def _error(data: dict[str, Any]) -> WireError:
    limited = "rate_limit" in facts.error_code(data)
    return WireError(facts.complaint(data), Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR)
