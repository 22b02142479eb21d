"""Triton's generate extension: `POST /v2/models/M/generate_stream`, events with `text_output`.

Only `text_input`, `max_tokens` and `stream` are sent, because a model refuses inputs that it doesn't have; what one has
besides (`ignore_eos` inside `parameters`, `min_tokens`, `exclude_input_in_output`) goes in extra_body. There is neither
usage nor a terminator: the end of the body ends the answer, and the HTTP framing shows a cut. Source: Triton server,
docs/protocol/extension_generate.md.
"""

from __future__ import annotations

from typing import Any

from ..exchange import Call, Exchange
from . import lenient
from .interface import Reader, RequestFields, Wire, merged, prompt


def _body(call: Call, target: RequestFields) -> dict[str, Any]:
    return merged({"text_input": prompt(call), "max_tokens": call.max_tokens, "stream": True}, target.extra_body)


class TritonReader(Reader):
    open_ended = True

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = lenient.load(event)
        if data.get("error"):
            raise lenient.failure(data)
        exchange.model = lenient.name(data.get("model_name")) or exchange.model
        exchange.request_id = exchange.request_id or lenient.name(data.get("id"))
        text = lenient.text(data.get("text_output"))
        exchange.add_text(text)
        return 1 if text else 0


WIRE = Wire("/v2/models/{model}/generate_stream", _body, TritonReader)
