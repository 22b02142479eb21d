"""Wire formats by the endpoint type's name; interface.py says what a wire format is."""

from __future__ import annotations

from . import anthropic, engines, openai
from .interface import RATE_LIMIT_STATUSES, Reader, Wire, WireError

__all__ = ["RATE_LIMIT_STATUSES", "WIRES", "Reader", "Wire", "WireError"]

WIRES: dict[str, Wire] = {
    "chat": openai.CHAT, "completions": openai.COMPLETIONS, "groq": openai.GROQ, "dynamo": openai.DYNAMO,
    "responses": openai.RESPONSES, "sglang": engines.SGLANG, "tgi": engines.TGI, "triton": engines.TRITON,
    "anthropic": anthropic.WIRE,
}  # fmt: skip
