"""JSON lines: one object a row. Numbers with a fraction are read as decimals, so that no digit is lost."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import InputError
from ..files import Source
from ..trace import Trace
from .cells import BadCell, mapping
from .clocks import spread, timed
from .columns import add_record, form_for
from .csv_table import block_sizes, unknown_columns
from .rows import Options, Rows


def parse(line: bytes | str) -> Any:
    """One JSON value; BadCell where it isn't one, nests too deeply, or holds a number that is too long."""
    try:
        return json.loads(line, parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise BadCell("", f"not JSON: {str(error)[:80]}") from None


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
    form = form_for(columns)
    if form is None:
        raise unknown_columns(source.name, columns)
    rows = Rows(source.name, options, form.unordered, form.relative)
    sizes: dict[int, int] = {}
    for number, line in source.lines():
        try:
            record = mapping(parse(line))
        except BadCell as error:
            rows.bad(number, error)
        else:
            add_record(rows, number, record, form, sizes)
        if rows.full:
            break
    trace = rows.trace(form.name, block_sizes(sizes, form))
    if not form.time:
        return timed(trace, options)
    return spread(trace, options.seed) if form.ticks and not options.keep_ticks else trace


def object_or_refuse(source: Source, what: str) -> dict[str, Any]:
    """A whole file that is one JSON object."""
    with source.open() as stream:
        try:
            return dict(mapping(parse(stream.read())))
        except BadCell as error:
            raise InputError(error.message, where=source.name, remedy=f"expected {what}") from None
