"""Plain completions of the OpenAI family: `POST /v1/completions`; the prompt is text or token ids."""

from __future__ import annotations

import orjson

from ..target import Call, Target
from . import lenient
from .openai import Reader, body

__all__ = ["Reader", "request"]


def request(ask: Call, spec: Target) -> tuple[str, list[tuple[str, str]], bytes]:
    prompt = ask.prompt if isinstance(ask.prompt, list) else lenient.prompt(ask)
    return "/v1/completions", [], orjson.dumps(body(ask, spec, {"prompt": prompt}))
