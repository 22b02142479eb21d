"""Chat completions of the OpenAI family: `POST /v1/chat/completions`."""

from __future__ import annotations

import orjson

from ..target import Ask, Spec
from . import facts
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(ask: Ask, spec: Spec) -> tuple[str, list[tuple[str, str]], bytes]:
    return "/v1/chat/completions", [], orjson.dumps(body(ask, spec, {"messages": facts.messages(ask)}))
