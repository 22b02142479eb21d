"""JSON lines: one object a row. Numbers with a fraction are read as decimals, so that no digit is lost."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..files import Source
from ..trace import Trace
from .cells import BadCell, mapping, parse
from .columns import add_record, format_of
from .csv_table import block_sizes, unknown_columns
from .rows import Options, Rows, spread, timed


def keys(head: bytes) -> list[str] | None:
    """The keys of the first line, where that is a JSON object."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    try:
        first = parse(line)
    except BadCell:
        return None
    return list(first) if isinstance(first, dict) else None


def read(source: Source, options: Options) -> Trace:
    columns = keys(source.head) or []
    table = format_of(columns)
    if table is None:
        raise unknown_columns(source.name, columns)
    rows = Rows(source.name, options, table.unordered, table.relative)
    sizes: dict[int, int] = {}
    for number, line in source.lines():
        try:
            record = mapping(parse(line))
        except BadCell as error:
            rows.bad(number, error)
        else:
            add_record(rows, number, record, table, sizes)
        if rows.full:
            break
    trace = rows.trace(table.name, block_sizes(sizes, table))
    if not table.time:
        return timed(trace, options)
    return spread(trace, options.seed) if table.ticks and not options.keep_ticks else trace


def object_or_refuse(source: Source, what: str) -> dict[str, Any]:
    """A whole file that is one JSON object."""
    with source.open() as stream:
        try:
            return dict(mapping(parse(stream.read())))
        except BadCell as error:
            raise InputError(error.message, where=source.name, remedy=f"expected {what}") from None
