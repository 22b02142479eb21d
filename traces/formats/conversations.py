"""Logged conversations: real messages become lengths and prefix blocks, and their text is let go.

Each message is a block of its own size whose id is a hash of its role and text, so that requests which began with
the same messages share the same (generated) text, in any order and across files. Without the model's own count, a
message has a token for every four characters, the usual rule for English; `estimated` tells the reader to say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from .cells import BadCell, shown

CHARS_PER_TOKEN = 4


class Conversations:
    """Messages met so far: `sizes` is tokens by block id."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def prefix(self, messages: Iterable[tuple[str, str]]) -> tuple[int, ...]:
        """Block ids of (role, text) messages."""
        ids = []
        for role, text in messages:
            digest = hashlib.blake2b(f"{role}\0{text}".encode(errors="replace"), digest_size=8).digest()
            block = int.from_bytes(digest, "big") >> 1
            self.sizes[block] = tokens(text)
            ids.append(block)
        return tuple(ids)

    def length(self, prefix: Iterable[int]) -> int:
        return sum(self.sizes[block] for block in prefix)


def tokens(text: str) -> int:
    """About how many tokens, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def messages(value: Any, column: str) -> list[tuple[str, str]]:
    """(role, text) of a list of messages in any of the usual shapes."""
    if not isinstance(value, list):
        raise BadCell(column, f"expected a list of messages, got {shown(value)}")
    return [_message(one, column) for one in value]


def _message(value: Any, column: str) -> tuple[str, str]:
    if not isinstance(value, dict):
        raise BadCell(column, f"expected a message, got {shown(value)}")
    role = value.get("role", value.get("from", ""))
    return str(role), _text(value.get("content", value.get("value", value.get("parts", ""))))


def _text(content: Any) -> str:
    """A message's text; of parts, the text of each."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text", content.get("content", "")))
    return content if isinstance(content, str) else "" if content is None else str(content)
