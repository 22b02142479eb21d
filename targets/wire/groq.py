"""GroqCloud, and a GroqRack behind the same API: `POST /openai/v1/chat/completions`.

Groq refuses fields that it doesn't know, and has neither `ignore_eos` nor `min_tokens`: the output length is held by
`max_completion_tokens` alone. Usage comes with times (queue, prompt, completion; the total leaves the queue out) in the
last chunk's `x_groq`, failures in mid-stream as `x_groq.error`, 498 is the flex tier's "no capacity now".
Source: https://console.groq.com/docs/api-reference and the `groq` Python client's types.
"""

from __future__ import annotations

import orjson

from ..exchange import Call
from . import lenient, openai
from .interface import RequestFields
from .openai import Reader

__all__ = ["Reader", "request"]


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    fields = {"messages": lenient.messages(call)}
    exact = bool(target.ignore_eos)  # only where the user insists
    body = openai.body(call, target, fields, length="max_completion_tokens", exact=exact)
    return "/openai/v1/chat/completions", [], orjson.dumps(body)
