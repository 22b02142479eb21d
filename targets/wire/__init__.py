"""Wire formats by the endpoint type's name; interface.py says what a wire format is."""

from __future__ import annotations

from types import ModuleType

from . import anthropic, chat, completions, dynamo, groq, responses, sglang, tgi, triton
from .interface import RATE_LIMIT_STATUSES, WireError

__all__ = ["RATE_LIMIT_STATUSES", "WIRES", "WireError"]

WIRES: dict[str, ModuleType] = {
    "chat": chat,
    "completions": completions,
    "groq": groq,
    "dynamo": dynamo,
    "responses": responses,
    "sglang": sglang,
    "tgi": tgi,
    "triton": triton,
    "anthropic": anthropic,
}
