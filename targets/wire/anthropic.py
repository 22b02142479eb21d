"""Anthropic messages: `POST /v1/messages`, typed events from `message_start` to `message_stop`.

Output length is held by `max_tokens` alone. Input tokens are given without those read from or written to the cache, so
the three are added, each with its last value. `message_start`'s output tokens are a beginning, not a total.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from ..exchange import Call, Exchange
from . import lenient
from .interface import Json, Reader, RequestFields, Wire, merged, messages

TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _body(call: Call, target: RequestFields) -> Json:
    body = {"model": target.model, "max_tokens": call.max_tokens, "messages": messages(call), "stream": True}
    return merged(body, target.extra_body)


class AnthropicReader(Reader):
    _prompt: tuple[int | None, ...] = (None, None, None)  # as PROMPT names them

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = lenient.load(event)
        match data.get("type"):
            case "content_block_delta":
                delta = lenient.mapping(data.get("delta"))
                text = lenient.text(delta.get(TEXTS.get(str(delta.get("type")), "")))
                exchange.add_text(text)
                return 1 if text else 0
            case "message_start":
                self._note(lenient.mapping(data.get("message")), exchange)
            case "message_delta":
                self._note(data | lenient.mapping(data.get("delta")), exchange)
                self._note_total(data, exchange)
                self.open_ended = exchange.finish_reason is not None
            case "message_stop":
                self.finished = True
            case "error":
                raise lenient.failure(data)
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.load(body)
        if data.get("type") == "error":
            raise lenient.failure(data)
        self._note(data, exchange)
        self._note_total(data, exchange)
        return self.whole(lenient.text(data.get("content")), exchange)

    def _note(self, message: Json, exchange: Exchange) -> None:
        exchange.request_id = exchange.request_id or lenient.name(message.get("id"))
        usage = lenient.mapping(message.get("usage"))
        counts = (lenient.count(usage.get(key)) for key in PROMPT)
        self._prompt = tuple(old if new is None else new for old, new in zip(self._prompt, counts, strict=True))
        fresh, cached, written = self._prompt
        lenient.note(
            exchange, model=lenient.name(message.get("model")), finish_reason=lenient.name(message.get("stop_reason")),
            service_tier=lenient.name(usage.get("service_tier")),
            usage_prompt=None if fresh is None else fresh + (cached or 0) + (written or 0), usage_cached=cached,
        )  # fmt: skip

    def _note_total(self, data: Json, exchange: Exchange) -> None:
        lenient.note(exchange, usage_output=lenient.total(lenient.mapping(data.get("usage")).get("output_tokens")))


WIRE = Wire("/v1/messages", _body, AnthropicReader, (("anthropic-version", "2023-06-01"),), key_header="x-api-key")
