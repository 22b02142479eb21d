"""CSV tables: by Arrow's parser as long as every cell is good (`table_quick`), else row by row, which can say what is
wrong where. The careful way alone defines what is accepted.
"""

from __future__ import annotations

import csv

from ..errors import InputError
from ..files import Source
from ..trace import Trace
from . import csv_fast
from .cells import BadCell, shown
from .clocks import timed
from .columns import FORMS, TableFormat, add_record, form_for
from .rows import Options, Rows


def header(head: bytes) -> list[str] | None:
    """The column names of a CSV file by its first bytes, or None where its first line is no header of ours."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    try:
        cells = _cells(line.decode())
    except (UnicodeDecodeError, csv.Error):
        return None
    return cells if any(cell in form.columns for form in FORMS for cell in cells) else None


def read(source: Source, options: Options) -> Trace:
    columns = header(source.head)
    if not columns:
        if b"\0" in source.head:
            raise InputError("not a trace of a known format", where=source.name, remedy="see docs/traces.md")
        raise InputError("no header line", where=source.name, line=1, remedy="is it a CSV trace?")
    form = form_for(columns)
    if form is None:
        raise unknown_columns(source.name, columns)
    return csv_fast.read(source, columns, form, options) or _careful(source, columns, form, options)


def unknown_columns(where: str, columns: list[str]) -> InputError:
    """What is missing for the form that comes closest."""

    def missing(form: TableFormat) -> list[str]:
        wanted = (form.time, form.prompt, form.output, *sorted(form.needs))
        return [column for column in wanted if column and column not in columns]

    nearest = min((form for form in FORMS if form.time), key=lambda form: len(missing(form)))
    lacking = missing(nearest)
    return InputError(
        f"expected column {lacking[0]!r} of the {nearest.name} format, found {', '.join(map(shown, columns[:8]))}",
        where=where,
        line=1,
        column=lacking[0],
        remedy="rename the column, or see docs/traces.md for the formats",
    )


def _careful(source: Source, columns: list[str], form: TableFormat, options: Options) -> Trace:
    rows = Rows(source.name, options, form.unordered, form.relative)
    sizes: dict[int, int] = {}
    lines = source.lines()
    next(lines)
    for number, line in lines:
        try:
            cells = _cells(line.decode())
            if len(cells) != len(columns):
                raise BadCell("", f"expected {len(columns)} cells, got {len(cells)}")
        except UnicodeDecodeError:
            rows.bad(number, BadCell("", "not UTF-8 text"))
        except csv.Error as error:
            rows.bad(number, BadCell("", f"not CSV: {error}"))
        except BadCell as error:
            rows.bad(number, error)
        else:
            add_record(rows, number, dict(zip(columns, cells, strict=True)), form, sizes)
        if rows.full:
            break
    trace = rows.trace(form.name, block_sizes(sizes, form))
    return trace if form.time else timed(trace, options)


def block_sizes(sizes: dict[int, int], form: TableFormat) -> int | dict[int, int]:
    """One number where all blocks are equally long."""
    distinct = set(sizes.values())
    if len(distinct) > 1:
        return sizes
    return distinct.pop() if distinct else form.block_tokens


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r")
    cells = line.split(",") if '"' not in line else next(csv.reader([line], strict=True))
    return [cell.strip() for cell in cells]
