"""Plain completions of the OpenAI family: `POST /v1/completions`; the prompt is text or token ids."""

from __future__ import annotations

import orjson

from ..exchange import Call
from ..target import Target
from . import lenient
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(call: Call, target: Target) -> tuple[str, list[tuple[str, str]], bytes]:
    prompt = call.prompt if isinstance(call.prompt, list) else lenient.prompt(call)
    return "/v1/completions", [], orjson.dumps(body(call, target, {"prompt": prompt}))
