"""Triton's generate extension: `POST /v2/models/M/generate_stream`, events with `text_output`.

Only `text_input`, `max_tokens` and `stream` are sent, because a model refuses inputs that it doesn't have; what one has
besides (`ignore_eos` inside `parameters`, `min_tokens`, `exclude_input_in_output`) goes in extra_body. There is neither
usage nor a terminator: the end of the body ends the answer, and the HTTP framing shows a cut. Source: Triton server,
docs/protocol/extension_generate.md.
"""

from __future__ import annotations

from urllib.parse import quote

import orjson

from ..exchange import Call, Exchange, Outcome
from . import lenient
from .interface import RequestFields, WireError


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    body = {"text_input": lenient.prompt(call), "max_tokens": call.max_tokens, "stream": True}
    path = f"/v2/models/{quote(target.model, safe='')}/generate_stream"
    return path, [], orjson.dumps(lenient.merged(body, target.extra_body))


class Reader:
    """The events of one answer; it is whole when its body is."""

    __slots__ = ()
    finished, open_ended = False, True

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = lenient.load(event)
        if data.get("error"):
            raise WireError(lenient.complaint(data), Outcome.HTTP_ERROR)
        exchange.model = lenient.name(data.get("model_name")) or exchange.model
        exchange.request_id = exchange.request_id or lenient.name(data.get("id"))
        text = lenient.text(data.get("text_output"))
        exchange.add_text(text)
        return 1 if text else 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        return self.feed(body, "", exchange)
