"""NVIDIA Dynamo's frontend: chat completions that also request the phases' times and the workers' ids.

They come in `nvext` (`targets.wire.openai` reads them); a server that doesn't know `nvext.extra_fields` may refuse the
request, which is why this is a type of its own and not part of chat. Source: dynamo,
lib/llm/src/protocols/openai/nvext.rs.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Call
from . import lenient, openai
from .interface import RequestFields
from .openai import Reader

__all__ = ["Reader", "request"]

EXTRA_FIELDS = ["timing", "worker_id"]


def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]:
    fields: dict[str, Any] = {"messages": lenient.messages(call), "nvext": {"extra_fields": EXTRA_FIELDS}}
    return "/v1/chat/completions", [], orjson.dumps(openai.body(call, target, fields))
