"""Chat completions of the OpenAI family: `POST /v1/chat/completions`."""

from __future__ import annotations

import orjson

from ..exchange import Call
from . import lenient
from .interface import RequestFields
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    return "/v1/chat/completions", [], orjson.dumps(body(call, target, {"messages": lenient.messages(call)}))
