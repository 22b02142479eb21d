"""TGI's own stream: `POST /generate_stream`, one event a token, the last one with `generated_text` and `details`.

Output length is held by `max_new_tokens` alone. There is no [DONE].
Source: text-generation-inference, router/src/lib.rs (StreamResponse, StreamDetails).
"""

from __future__ import annotations

from typing import Any

from ..exchange import Call, Exchange
from . import lenient
from .interface import Reader, RequestFields, Wire, merged, prompt


def _body(call: Call, target: RequestFields) -> dict[str, Any]:
    parameters = {"max_new_tokens": call.max_tokens, "details": True}
    return merged({"inputs": prompt(call), "parameters": parameters, "stream": True}, target.extra_body)


class TgiReader(Reader):
    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = _noted(event, exchange)
        self.finished = self.finished or data.get("generated_text") is not None
        token = data.get("token")
        if not isinstance(token, dict):
            return 0
        exchange.add_text(lenient.text(token.get("text")))
        return 1

    def answer(self, body: bytes, exchange: Exchange) -> int:
        return self.whole(lenient.text(_noted(body, exchange).get("generated_text")), exchange)


def _noted(event: bytes | memoryview, exchange: Exchange) -> dict[str, Any]:
    """The event's object, its details put onto the exchange."""
    data = lenient.load(event)
    if data.get("error"):
        raise lenient.failure(data)
    details = lenient.mapping(data.get("details"))
    lenient.note(
        exchange,
        finish_reason=lenient.name(details.get("finish_reason")),
        usage_output=lenient.total(details.get("generated_tokens")),
        usage_prompt=lenient.count(details.get("input_length")),
    )
    return data


WIRE = Wire("/generate_stream", _body, TgiReader)
