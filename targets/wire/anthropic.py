"""Anthropic messages: `POST /v1/messages`, typed events from `message_start` to `message_stop`.

Output length is held by `max_tokens` alone. Input tokens are given without those read from or written to the cache, so
the three are added. Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Exchange, Outcome
from ..target import Ask, Spec
from . import WireError, facts

KEY_HEADER = "x-api-key"
VERSION = "2023-06-01"
TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
OVERLOADED = {"rate_limit_error", "overloaded_error"}


def request(ask: Ask, spec: Spec) -> tuple[str, list[tuple[str, str]], bytes]:
    body = {
        "model": spec.model,
        "max_tokens": ask.tokens,
        "messages": facts.messages(ask),
        "stream": True,
        **spec.extra_body,
    }
    return "/v1/messages", [("anthropic-version", VERSION)], orjson.dumps(body)


class Reader:
    """The typed events of one answer."""

    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = False

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = facts.load(event)
        match data.get("type"):
            case "content_block_delta":
                delta = facts.mapping(data.get("delta"))
                text = facts.text(delta.get(TEXTS.get(str(delta.get("type")), "")))
                exchange.hear(text)
                return 1 if text else 0
            case "message_start":
                _note(facts.mapping(data.get("message")), exchange)
            case "message_delta":
                _note(data | facts.mapping(data.get("delta")), exchange)
            case "message_stop":
                self.finished = True
            case "error":
                raise WireError(facts.complaint(data), _outcome(data))
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = facts.load(body)
        if data.get("type") == "error":
            raise WireError(facts.complaint(data), _outcome(data))
        _note(data, exchange)
        self.finished = True
        blocks = data.get("content")
        texts = [facts.text(facts.mapping(b).get("text")) for b in blocks] if isinstance(blocks, list) else []
        exchange.hear("".join(texts))
        return exchange.usage_output or int(any(texts))


def _note(message: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or facts.name(message.get("id"))
    exchange.model = facts.name(message.get("model")) or exchange.model
    exchange.finish_reason = facts.name(message.get("stop_reason")) or exchange.finish_reason
    usage = facts.mapping(message.get("usage"))
    exchange.service_tier = facts.name(usage.get("service_tier")) or exchange.service_tier
    cached, written = (facts.count(usage.get(f"cache_{key}_input_tokens")) for key in ("read", "creation"))
    fresh = facts.count(usage.get("input_tokens"))
    if fresh is not None:
        exchange.usage_prompt = fresh + (cached or 0) + (written or 0)
        exchange.usage_cached = cached
    given = facts.count(usage.get("output_tokens"))
    if given is not None:
        exchange.usage_output = given


def _outcome(data: dict[str, Any]) -> Outcome:
    kind = facts.mapping(data.get("error")).get("type")
    return Outcome.RATE_LIMITED if kind in OVERLOADED else Outcome.HTTP_ERROR
