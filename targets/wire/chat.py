"""Chat completions of the OpenAI family: `POST /v1/chat/completions`."""

from __future__ import annotations

import orjson

from ..target import Call, Target
from . import lenient
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(ask: Call, spec: Target) -> tuple[str, list[tuple[str, str]], bytes]:
    return "/v1/chat/completions", [], orjson.dumps(body(ask, spec, {"messages": lenient.messages(ask)}))
