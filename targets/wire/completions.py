"""Plain completions of the OpenAI family: `POST /v1/completions`; the prompt is text or token ids."""

from __future__ import annotations

import orjson

from ..exchange import Call
from . import lenient
from .interface import RequestFields
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    prompt = call.prompt if isinstance(call.prompt, list) else lenient.prompt(call)
    return "/v1/completions", [], orjson.dumps(body(call, target, {"prompt": prompt}))
