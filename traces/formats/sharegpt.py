"""ShareGPT: a JSON list of conversations, without instants. Each answer is a request that carries all before it.

`conversations[{from, value}]` or `messages[{role, content}]`; a conversation that opens with an answer loses that
answer.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..files import Source
from ..trace import Trace
from .cells import BadCell, shown
from .clocks import timed
from .conversations import Conversations, messages, tokens
from .jsonl import parse
from .rows import Options, Rows

ASSUMED_TPOT = 20_000_000  # ns: without instants, a follow-up comes when its answer would have been given
ANSWERERS = {"gpt", "assistant", "chatgpt", "bard", "bing", "model"}


def read(source: Source, options: Options) -> Trace:
    rows = Rows(source.name, options, unordered=True)
    said = Conversations()
    with source.open() as stream:
        document = parse(stream.read())
    if not isinstance(document, list):
        raise InputError("expected a list of conversations", where=source.name, remedy="see docs/traces.md")
    for number, conversation in enumerate(document, start=1):
        try:
            _requests(_turns(conversation), number, rows, said)
        except BadCell as error:
            rows.bad(None, BadCell(error.column, f"conversation {number}: {error.message}"))
    rows.notes["lengths"] = "estimated from the text"
    return timed(rows.trace("sharegpt", said.sizes), options)


def _turns(conversation: Any) -> list[tuple[str, str]]:
    if not isinstance(conversation, dict):
        raise BadCell("", f"expected a conversation, got {shown(conversation)}")
    found = conversation.get("conversations", conversation.get("messages"))
    return messages(found, "conversations")


def _requests(turns: list[tuple[str, str]], session: int, rows: Rows, said: Conversations) -> None:
    due = 0
    for position, (role, text) in enumerate(turns):
        if role not in ANSWERERS or position == 0:
            continue
        prefix = said.prefix(turns[:position])
        rows.add(
            0,
            {
                "due": due,
                "prompt_tokens": said.length(prefix),
                "output_tokens": tokens(text),
                "session": session,
                "prefix": prefix,
                "think": 0,
            },
        )
        due += tokens(text) * ASSUMED_TPOT
