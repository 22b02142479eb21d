"""CSV tables: by Arrow's parser as long as every cell is good, else row by row, which can say what is wrong where.

The quick way reads 2 million rows/s and more, ends early where `until` allows it, and gives up (None) at
whatever it doesn't understand; the careful way then decides, so it alone defines what is accepted.
"""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..errors import InputError
from ..forms import FAILURES, FORMS, Form, add_record, form_for
from ..rows import Options, Rows, beginning, within
from ..source import Source
from ..trace import Trace, build
from ..units import LARGEST_INSTANT, NANOS, BadCell, shown
from .untimed import timed

BLOCK = 4 << 20  # bytes parsed at a time


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
    return _quick(source, columns, form, options) or _careful(source, columns, form, options)


def unknown_columns(where: str, columns: list[str]) -> InputError:
    """What is missing for the form that comes closest."""

    def missing(form: Form) -> list[str]:
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


def _careful(source: Source, columns: list[str], form: Form, options: Options) -> Trace:
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


def block_sizes(sizes: dict[int, int], form: Form) -> int | dict[int, int]:
    """One number where all blocks are equally long."""
    distinct = set(sizes.values())
    if len(distinct) > 1:
        return sizes
    return distinct.pop() if distinct else form.block_tokens


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r")
    cells = line.split(",") if '"' not in line else next(csv.reader([line], strict=True))
    return [cell.strip() for cell in cells]


def _quick(source: Source, columns: list[str], form: Form, options: Options) -> Trace | None:
    """Time and lengths alone, through Arrow; None where there is more in the table, or anything wrong with it."""
    more = {form.session, form.prefix, form.index, form.parent, form.turn, form.think} & set(columns)
    if form.time is None or more:
        return None
    parts = []
    try:
        with source.open() as stream:
            first = None
            for batch in _batches(stream, source, form):
                part = _part(batch, form)
                if part is None:
                    return None
                first = beginning(int(part[0][0]), form.relative) if first is None else first
                parts.append(part)
                if options.until is not None and part[0][-1] - first > options.until:
                    break
    except pa.ArrowInvalid:
        return None
    if not parts:
        return None
    due, prompt, output = (np.concatenate(column) for column in zip(*parts, strict=True))
    if (np.diff(due) < 0).any():
        return None
    notes = {}
    if form.drop_failures and not (answered := (prompt > 0) & (output > 0)).all():
        due, prompt, output = due[answered], prompt[answered], output[answered]
        notes[FAILURES] = int(len(answered) - len(due))
    columns_ = {"due": due - beginning(int(due[0]), form.relative), "prompt_tokens": prompt, "output_tokens": output}
    return within(build(columns_, name=form.name, source=source.name, notes=notes), options) if len(due) else None


def _batches(stream: Any, source: Source, form: Form) -> Any:
    kinds: dict[str, Any] = {
        str(form.time): _time_type(form, source.head),
        form.prompt: pa.int32(),
        form.output: pa.int32(),
    }
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
        convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=list(kinds)),
    )


def _time_type(form: Form, head: bytes) -> Any:
    if form.unit != "iso":
        return pa.int64() if form.unit == "ns" else pa.decimal128(27, 9)  # 38 digits hold it and its nanoseconds
    second = head.split(b"\n", 2)[1:2]
    return pa.timestamp("ns", "UTC" if second and b"+" in second[0] else None)


def _part(batch: Any, form: Form) -> tuple[Any, Any, Any] | None:
    """A batch as (ns, prompt, output), or None if a cell is missing or out of bounds."""
    time, prompt, output = batch.columns
    if not batch.num_rows:
        return None
    if any(column.null_count for column in batch.columns):
        return None
    if form.unit in ("iso", "ns"):
        due = time.cast(pa.int64())
    else:
        scaled = pc.multiply(time, pa.scalar(NANOS[form.unit], pa.decimal128(10, 0)))
        due = scaled.cast(pa.int64())  # raises where a digit would be lost
    due, prompt, output = (column.to_numpy(zero_copy_only=False) for column in (due, prompt, output))
    if prompt.min() < (not form.drop_failures) or output.min() < 0 or abs(due).max() > LARGEST_INSTANT:
        return None
    return due, prompt, output
