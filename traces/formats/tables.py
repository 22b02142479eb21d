"""The public formats that are tables, in JSON lines or CSV: which columns mean what, and in which unit. A format is a
row of `TABLES`.

A format fits a table that has its `time`, `prompt` and `output` columns and everything in `needs`; the first that
fits is taken, so more particular formats come first. Schemas and their quirks: docs/traces.md.

Here tables are read row by row, numbers with a fraction as decimals, so that no digit is lost; `csv_table` has a
faster way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from ..errors import InputError, one_of
from ..files import Source
from ..trace import Trace
from .cells import BadCell, block_ids, instant, keys, length, mapping, parse, shown, whole
from .rows import ReadOptions, Row, Rows, spread, timed

FAILURES = "failed requests left out"
MOST_SHOWN = 8  # columns in a message
Line = tuple[int, bytes]  # numbered from 1
PARTS = ("sys_prompt", "passages_ids", "history", "web_search", "user_input")
LENGTH = "token_length"
NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class TableFormat:
    """One tabular format. `unit` is s, ms, us, ns or iso; `time` None: lengths only, which need an arrival process."""

    name: str
    prompt: str
    output: str
    time: str | None = None
    unit: str = "s"
    session: str | None = None
    turn: str | None = None
    prefix: str | None = None  # column of block ids
    block_tokens: int = 0
    sizes: str | None = None  # column of the blocks' own lengths
    index: str | None = None
    parent: str | None = None
    key: str | None = None  # what `parent` refers to, where it isn't `index`
    think: str | None = None
    think_unit: str = "ns"
    service: str | None = None  # how long the answer took, s: what is left of a gap between turns is thinking
    needs: tuple[str, ...] = ()
    relative: bool = False  # instants count from the trace's start, unless they lie more than a year from it
    ticks: bool = False  # timestamps sit on coarse ticks: spread inside them
    unordered: bool = False
    drop_failures: bool = False  # rows without tokens are failures that the publisher logged

    @property
    def required(self) -> list[str]:
        return [column for column in (self.time, self.prompt, self.output, *self.needs) if column]

    @property
    def columns(self) -> set[str | None]:
        """Every column that it can use."""
        return {*self.required, *(column for _, column, _ in self.optional), self.sizes, self.key}

    @cached_property
    def optional(self) -> list[tuple[str, str, Callable[[Any, str], Any]]]:
        """What its rows may have: (name of ours, its column, what reads a cell)."""
        readers: dict[str, Callable[[Any, str], Any]] = {
            "session": _key, "turn": length, "index": whole, "parent": _key,
            "think": lambda cell, column: instant(cell, self.think_unit, column),
            "service": lambda cell, column: instant(cell, "s", column), "prefix": block_ids,
        }  # fmt: skip
        return [(name, column, read) for name, read in readers.items() if (column := getattr(self, name))]


def _own(unit: str) -> TableFormat:
    return TableFormat(
        "phaseload", "prompt_tokens", "output_tokens", f"due_{unit}", unit, session="session", turn="turn",
        prefix="prefix", sizes="prefix_tokens", index="index", parent="parent", think=f"think_{unit}", think_unit=unit,
        relative=True,
    )  # fmt: skip


TABLES = (
    *(_own(unit) for unit in ("s", "ms", "us", "ns")),
    TableFormat("azure-2025-lmm", "ContextTokens", "GeneratedTokens", "TIMESTAMP", "iso", needs=("NumImages",)),
    TableFormat("azure", "ContextTokens", "GeneratedTokens", "TIMESTAMP", "iso"),
    TableFormat("burstgpt", "Request tokens", "Response tokens", "Timestamp", session="Session ID",
        service="Elapsed time", drop_failures=True),
    TableFormat("vidur", "num_prefill_tokens", "num_decode_tokens", "arrived_at"),
    TableFormat("bailian", "input_length", "output_length", "timestamp", prefix="hash_ids", block_tokens=16,
        turn="turn", parent="parent_chat_id", key="chat_id", needs=("chat_id", "parent_chat_id")),
    TableFormat("mooncake", "input_length", "output_length", "timestamp", "ms", prefix="hash_ids", block_tokens=512,
        needs=("hash_ids",), ticks=True),
    TableFormat("llmservingsim", "input_toks", "output_toks", "arrival_time_ns", "ns"),
    TableFormat("lengths", "prompt_tokens", "output_tokens"),
    TableFormat("vidur-lengths", "num_prefill_tokens", "num_decode_tokens"),
)  # fmt: skip


def names_of(text: str) -> dict[str, str]:
    """`due_s=start_time,prompt_tokens=in`: what a user says of a table's columns, as our names by theirs."""
    known, names = sorted({column for table in TABLES for column in table.columns if column}), {}
    for part in text.split(","):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not equals or not theirs or ours not in known:
            remedy = "as in due_s=start_time,prompt_tokens=in" if ours in known else one_of(ours, known)
            raise InputError(f"expected OURS=THEIRS, got {part.strip()!r}", where="--columns", remedy=remedy)
        names[theirs] = ours
    return names


def format_of(given: list[str], where: str, names: Mapping[str, str]) -> tuple[TableFormat, list[str]]:
    """The first format that fits these columns, and their names in it. Raises InputError with what is missing for the
    one that comes closest."""
    if absent := [shown(theirs) for theirs in names if theirs not in given]:
        there = ", ".join(map(shown, given[:MOST_SHOWN]))
        raise InputError(f"no column {', '.join(absent)}", where=f"--columns: {where}", remedy=f"it has {there}")
    columns = [names.get(column, column) for column in given]
    lacking = [(table, [column for column in table.required if column not in columns]) for table in TABLES]
    for table, missing in lacking:
        if not missing:
            return table, columns
    nearest, missing = min((pair for pair in lacking if pair[0].time), key=lambda pair: len(pair[1]))
    others, guesses = [column for column in columns if column not in nearest.columns], []
    for column in missing:
        near = get_close_matches(column, others, 1)
        others = [other for other in others if other not in near]
        guesses.append(f"{column}={near[0] if near else '...'}")
    understood = ", ".join(column for column in columns if column in nearest.columns) or "none"
    raise InputError(
        f"expected column {missing[0]!r} of the {nearest.name} format; understood {understood} of the columns "
        f"{', '.join(map(shown, given[:MOST_SHOWN]))}",
        where=where, line=1, column=missing[0], remedy=f"name them: --columns {','.join(guesses)}",
    )  # fmt: skip


def read_rows(
    source: Source, table: TableFormat, options: ReadOptions, lines: Iterable[Line], record: Callable[[bytes], Any]
) -> Trace:
    """A table's trace from its numbered lines, of which `record` makes a mapping or raises BadCell."""
    rows = Rows(source.name, options, table.unordered, table.relative)
    sizes: dict[int, int] = {}  # of blocks, where the format gives them
    for number, line in lines:
        try:
            _add(rows, number, mapping(record(line)), table, sizes)
        except BadCell as error:
            rows.bad(number, error)
        if rows.full:
            break
    uniform = set(sizes.values()) or {table.block_tokens}
    trace = rows.trace(table.name, sizes if len(uniform) > 1 else uniform.pop())
    if not table.time:
        return timed(trace, options)
    return spread(trace, options.seed) if table.ticks and not options.keep_ticks else trace


def _add(rows: Rows, line: int, record: Mapping[str, Any], table: TableFormat, sizes: dict[int, int]) -> None:
    if table.drop_failures and 0 in (whole(record.get(name), name) for name in (table.prompt, table.output)):
        rows.count(FAILURES)
        return
    row = _row(record, table, sizes)
    key = record.get(table.key) if table.key else row.get("index")
    rows.add(line, row, key if isinstance(key, int | str) else None, table.time or "")


def _row(record: Mapping[str, Any], table: TableFormat, sizes: dict[int, int]) -> Row:
    def cell(column: str) -> Any:
        if column not in record or record[column] is None:
            raise BadCell(column, "missing")
        return record[column]

    row: Row = {
        "due": instant(cell(table.time), table.unit, table.time) if table.time else 0,
        "prompt_tokens": length(cell(table.prompt), table.prompt, least=1),
        "output_tokens": length(cell(table.output), table.output),
    }
    for name, column, reader in table.optional:
        if record.get(column) not in (None, ""):
            row[name] = reader(record[column], column)
    if table.sizes and "prefix" in row:
        _gather(sizes, row["prefix"], block_ids(record.get(table.sizes), table.sizes), table.sizes)
    return row


def _key(value: Any, column: str) -> int | str:
    """A session's or parent's name; numbers written as text are numbers."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if NUMBER.fullmatch(text) else text
    return whole(value, column)


def _gather(sizes: dict[int, int], ids: list[int], tokens: list[int], column: str) -> None:
    if len(ids) != len(tokens):
        raise BadCell(column, f"expected {len(ids)} block lengths, one for each id, got {len(tokens)}")
    for block, size in zip(ids, tokens, strict=True):
        if size < 1 or sizes.setdefault(block, size) != size:
            raise BadCell(column, f"block {block} is {size} tokens long here, {sizes.get(block)} before")


def is_ragpulse(columns: list[str]) -> bool:
    return {"timestamp", "input_length", "output_length", "hash_ids", "session_id"} <= set(columns)


def read_ragpulse(sources: list[Source], options: ReadOptions) -> Trace:
    described = [(source, keys(source.head)) for source in sources]
    requests = next(source for source, columns in described if is_ragpulse(columns))
    rows = Rows(requests.name, options, unordered=True)
    sizes: dict[int, int] = {}
    for source, columns in described:
        if columns[1:] == [LENGTH] and columns[0].endswith("_id"):
            _chunks(source, columns[0], rows, sizes)
    for number, line in requests.lines():
        with rows.checked(number):
            rows.add(number, _ragpulse_row(mapping(parse(line)), sizes))
    if not sizes:
        rows.notes["chunk tables"] = "not there: prompts share nothing"
    return rows.trace("ragpulse", sizes)


def _chunks(source: Source, column: str, rows: Rows, sizes: dict[int, int]) -> None:
    for number, line in source.lines():
        with rows.checked(number, where=source.name):
            record = mapping(parse(line))
            sizes[whole(record.get(column), column)] = length(record.get(LENGTH), LENGTH)


def _ragpulse_row(record: Mapping[str, Any], sizes: dict[int, int]) -> Row:
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
