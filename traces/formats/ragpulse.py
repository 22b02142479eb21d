"""RAGPulse: a folder with the requests and, beside them, tables of how long each chunk of a prompt is.

Chunks come in the order of the prompt: system prompt, passages, history, web search, the user's words. Their sum is
6-12 tokens short of `input_length`: the template's own. One row of the published file is out of order, so rows are
sorted. Alone, without its tables, the request file still gives instants, lengths and sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files import Source
from ..trace import Trace
from .cells import BadCell, block_ids, instant, keys, length, mapping, parse, shown, whole
from .rows import Options, Row, Rows

PARTS = ("sys_prompt", "passages_ids", "history", "web_search", "user_input")
LENGTH = "token_length"


def is_requests(columns: list[str]) -> bool:
    return {"timestamp", "input_length", "output_length", "hash_ids", "session_id"} <= set(columns)


def is_chunks(columns: list[str]) -> bool:
    return len(columns) == 2 and columns[0].endswith("_id") and columns[1] == LENGTH


def read(sources: list[Source], options: Options) -> Trace:
    described = [(source, keys(source.head)) for source in sources]
    requests = next(source for source, columns in described if is_requests(columns))
    rows = Rows(requests.name, options, unordered=True)
    sizes: dict[int, int] = {}
    for source, columns in described:
        if is_chunks(columns):
            _chunks(source, columns[0], rows, sizes)
    for number, line in requests.lines():
        with rows.checked(number):
            rows.add(number, _row(mapping(parse(line)), sizes))
    if not sizes:
        rows.notes["chunk tables"] = "not there: prompts share nothing"
    return rows.trace("ragpulse", sizes)


def _chunks(source: Source, column: str, rows: Rows, sizes: dict[int, int]) -> None:
    for number, line in source.lines():
        with rows.checked(number, where=source.name):
            record = mapping(parse(line))
            sizes[whole(record.get(column), column)] = length(record.get(LENGTH), LENGTH)


def _row(record: Mapping[str, Any], sizes: dict[int, int]) -> Row:
    row: Row = {
        "due": instant(record.get("timestamp"), "s", "timestamp"),
        "prompt_tokens": length(record.get("input_length"), "input_length", least=1),
        "output_tokens": length(record.get("output_length"), "output_length"),
        "session": shown(record.get("session_id")),
    }
    if sizes:
        parts = mapping(record.get("hash_ids"), "hash_ids")
        row["prefix"] = [chunk for part in PARTS for chunk in block_ids(parts.get(part, []), part)]
        unknown = next((chunk for chunk in row["prefix"] if chunk not in sizes), None)
        if unknown is not None:
            raise BadCell("hash_ids", f"chunk {unknown} is in none of the chunk tables")
    return row
