"""GroqCloud, and a GroqRack behind the same API: `POST /openai/v1/chat/completions`.

Groq refuses fields that it doesn't know, and has neither `ignore_eos` nor `min_tokens`: the output length is held by
`max_completion_tokens` alone. Usage comes with times (queue, prompt, completion; the total leaves the queue out) in the
last chunk's `x_groq`, failures in mid-stream as `x_groq.error`, 498 is the flex tier's "no capacity now".
Source: https://console.groq.com/docs/api-reference and the `groq` Python client's types.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from ..exchange import Call
from ..target import Target
from . import lenient, openai
from .openai import Reader

__all__ = ["Reader", "request"]


def request(call: Call, target: Target) -> tuple[str, list[tuple[str, str]], bytes]:
    plain = replace(target, ignore_eos=bool(target.ignore_eos))  # only where the user insists
    body = openai.body(call, plain, {"messages": lenient.messages(call)}, length="max_completion_tokens")
    return "/openai/v1/chat/completions", [], orjson.dumps(body)
