"""Weka's agentic coding sessions: one JSON file a session, each on its own clock from 0; read together they start
together.

A turn comes `think_time` after the one before was answered (`api_time`). A sub-agent's entry stands at its *end*:
it began `duration_ms` earlier, its turns count from there, and it runs beside its parent, waiting only for the turn
it was born from. Block ids are local to the session (64 tokens, whole blocks only), so they are numbered anew
across sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files import Source
from ..trace import Trace
from .cells import BadCell, block_ids, document, instant, length, listing, shown
from .rows import Options, Row, Rows

KEYS = (b"block_size", b"hash_id_scope", b"requests")  # by which a session is known
SESSION_BITS = 32  # block ids of session k are k << 32 | local id


def read(sources: list[Source], options: Options) -> Trace:
    rows = Rows(sources[0].name if len(sources) == 1 else f"{len(sources)} sessions", options, unordered=True)
    sizes: set[int] = set()
    for number, source in enumerate(sources):
        session = document(source, "a session with requests")
        with rows.checked(where=source.name):
            size = length(session.get("block_size"), "block_size", least=1)
            if sizes and size not in sizes:
                raise BadCell("block_size", f"expected {min(sizes)} as in the other sessions, got {size}")
            offset = 0 if session.get("hash_id_scope") == "global" else number << SESSION_BITS
            _session(session.get("requests"), rows, source.name, number, offset)
            sizes.add(size)
    return rows.trace("weka", max(sizes, default=0))


def _session(requests: Any, rows: Rows, where: str, session: int, offset: int) -> None:
    """The main agent's turns in a row, each sub-agent's in a row of its own."""
    answered: list[tuple[int, int]] = []  # (when the main agent's turn was answered, its row's key)
    for number, request in enumerate(listing(requests, "requests"), start=1):
        with rows.checked(where=where, item=f"request {number}"):
            if _field(request, "type") == "subagent":
                _sub_agent(request, rows, where, session, offset, answered)
                continue
            row = _row(request, session, offset, 0, answered[-1][1] if answered else None)
            answered.append((row["due"] + instant(request.get("api_time", 0), "s", "api_time"), len(rows)))
            rows.add(None, row)


def _sub_agent(
    agent: Mapping[str, Any], rows: Rows, where: str, session: int, offset: int, answered: list[tuple[int, int]]
) -> None:
    begun = max(0, instant(agent.get("t"), "s", "t") - instant(agent.get("duration_ms"), "ms", "duration_ms"))
    born, parent = next(((when, key) for when, key in reversed(answered) if when <= begun), (begun, None))
    for number, request in enumerate(listing(agent.get("requests"), "requests"), start=1):
        with rows.checked(where=where, item=f"sub-agent's request {number}"):
            row = _row(request, session, offset, begun, parent)
            if number == 1:
                row["think"] = begun - born
            parent = len(rows)
            rows.add(None, row)


def _row(request: Any, session: int, offset: int, begun: int, parent: int | None) -> Row:
    ids = block_ids(_field(request, "hash_ids"), "hash_ids")
    return {
        "due": begun + instant(request.get("t"), "s", "t"),
        "prompt_tokens": length(request.get("in"), "in", least=1),
        "output_tokens": length(request.get("out"), "out"),
        "session": session,
        "prefix": [offset + block for block in ids],
        "parent": parent,
        "think": instant(request.get("think_time", 0), "s", "think_time"),
    }


def _field(request: Any, name: str) -> Any:
    if not isinstance(request, dict) or name not in request:
        raise BadCell(name, f"missing in {shown(request)}")
    return request[name]
