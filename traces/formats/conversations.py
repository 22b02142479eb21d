"""Logged conversations: real messages become lengths and prefix blocks, and their text is not kept.

Each message is a block of its own size whose id is a hash of its role and text, so that requests which began with
the same messages share the same (generated) text, in any order and across files. Without the model's own count, a
message has a token for every four characters, the usual rule for English, and the trace's notes say so.

`read` reads ShareGPT, a JSON list of conversations without instants: `conversations[{from, value}]` or
`messages[{role, content}]`. Each answer is a request that carries all messages before it; a conversation that opens
with an answer loses that answer. OpenTelemetry's spans (otel.py) have messages of the same kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..files import Source
from ..trace import ASSUMED_TPOT, Trace
from .cells import listing, mapping, parse
from .rows import Options, Rows, timed

CHARS_PER_TOKEN = 4
ANSWERERS = {"gpt", "assistant", "chatgpt", "bard", "bing", "model"}


def read(source: Source, options: Options) -> Trace:
    rows = Rows(source.name, options, unordered=True)
    log = Conversations()
    with source.open() as stream:
        conversations = listing(parse(stream.read()))
    for number, conversation in enumerate(conversations, start=1):
        with rows.checked(item=f"conversation {number}"):
            entry = mapping(conversation, what="a conversation")
            turns = messages(entry.get("conversations", entry.get("messages")), "conversations")
            _add_requests(turns, number, rows, log)
    rows.notes["lengths"] = "estimated from the text"
    return timed(rows.trace("sharegpt", log.sizes), options)


def _add_requests(turns: list[tuple[str, str]], session: int, rows: Rows, log: Conversations) -> None:
    due = 0
    for position, (role, text) in enumerate(turns):
        if role not in ANSWERERS or position == 0:
            continue
        prefix, output = log.prefix(turns[:position]), tokens(text)
        row = {"due": due, "prompt_tokens": log.length(prefix), "output_tokens": output, "session": session}
        rows.add(0, {**row, "prefix": prefix, "think": 0})
        due += output * ASSUMED_TPOT  # a follow-up comes when its answer would have been given


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
    return [_message(mapping(each, column, "a message")) for each in listing(value, column, "a list of messages")]


def _message(message: Mapping[str, Any]) -> tuple[str, str]:
    role = message.get("role", message.get("from", ""))
    return str(role), _text(message.get("content", message.get("value", message.get("parts", ""))))


def _text(content: Any) -> str:
    """A message's text; of parts, the text of each."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text", content.get("content", "")))
    return content if isinstance(content, str) else "" if content is None else str(content)
