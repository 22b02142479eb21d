"""CSV tables: by Arrow's parser as long as every cell is good, else row by row, which can say what is wrong where.

Two ways lead to the same trace. The careful way (`tables`) alone defines what is accepted. The fast way reads millions
of rows a second, as many as `until` asks for, and gives up, with None, at whatever isn't plain: an empty cell, a number
out of bounds or written in words, rows out of order, blocks that contradict each other.
"""

from __future__ import annotations

import csv
import io
import re
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..errors import InputError
from ..files import Source
from ..trace import LATEST, LONGEST, SCHEMA, Columns, Trace, build
from .cells import NANOS, BadCell
from .rows import ReadOptions, beginning, linked, within
from .tables import FAILURES, TableFormat, format_of, read_rows

BLOCK = 4 << 20  # bytes parsed at a time
DECIMAL = pa.decimal128(27, 9)  # its 38 digits hold it and its nanoseconds
NUMBERS = "^(-?[0-9]{1,18}( -?[0-9]{1,18})*)?$"
VALUE = re.compile(r"[-+]?[\d.]+|\d{4}-\d\d-\d\d.*")  # of a row, which no header has
EXPONENT = re.compile(rb"(?:^|[0-9.])[eE][-+]?(?:[0-9]{3}|[0-9]{0,2}$)")  # of three digits, or cut by a read's end
TIMES = ("due", "think")
NotPlain = pa.ArrowInvalid  # raised by Arrow and by us: the careful way has to look
BOUNDS = dict.fromkeys(TIMES, (-LATEST, LATEST)) | {
    "prompt_tokens": (1, LONGEST), "output_tokens": (0, LONGEST), "session": (-1, LONGEST), "turn": (0, LONGEST),
}  # fmt: skip


def header(head: bytes) -> list[str] | None:
    """The column names of a CSV file by its first bytes, or None where its first line is no header."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    try:
        cells = _cells(line.decode())
    except (UnicodeDecodeError, csv.Error):
        return None
    return cells if any(cells) and b"\0" not in line and not any(map(VALUE.fullmatch, cells)) else None


def read(source: Source, options: ReadOptions) -> Trace:
    columns = header(source.head)
    if not columns:
        if b"\0" in source.head:
            raise InputError("not a trace of a known format", where=source.name, remedy="see docs/traces.md")
        raise InputError("no header line", where=source.name, line=1, remedy="is it a CSV trace? docs/traces.md")
    table, columns = format_of(columns, source.name, options.names)
    return read_fast(source, columns, table, options) or read_carefully(source, columns, table, options)


def read_carefully(source: Source, columns: list[str], table: TableFormat, options: ReadOptions) -> Trace:
    def record(line: bytes) -> dict[str, str]:
        try:
            cells = _cells(line.decode())
        except UnicodeDecodeError:
            raise BadCell("", "not UTF-8 text") from None
        except csv.Error as error:
            raise BadCell("", f"not CSV: {error}") from None
        if len(cells) != len(columns):
            raise BadCell("", f"expected {len(columns)} cells, got {len(cells)}")
        return dict(zip(columns, cells, strict=True))

    return read_rows(source, table, options, islice(source.lines(), 1, None), record)


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r")
    cells = line.split(",") if '"' not in line else next(csv.reader([line], strict=True))
    return [cell.strip() for cell in cells]


def read_fast(source: Source, columns: list[str], table: TableFormat, options: ReadOptions) -> Trace | None:
    """None where the careful way has to look."""
    trace: Columns = {}
    try:
        fields = _fields(table, columns)
        with source.open() as stream:
            for batch in _batches(_Decimal(stream), source, table, columns, fields):
                part = _part(batch, table, fields)
                trace = {name: _longer(trace.get(name), values) for name, values in part.items()}
                first = beginning(int(trace["due"][0]), table.relative)
                if options.until_ns is not None and part["due"][-1] - first > options.until_ns:
                    break
        return _ordered(trace, source, table, options)
    except (NotPlain, pa.ArrowKeyError):
        return None


class _Decimal(io.RawIOBase):
    """A table of plain decimals. Arrow would take 0x10 for a number, and a large exponent (1e-400000000) crashes it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        stream.readline()  # the header

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data = self._stream.read(size)
        if b"x" in data or b"X" in data or ((b"e" in data or b"E" in data) and EXPONENT.search(data)):
            raise NotPlain("no decimal numbers")  # through Arrow, which calls this
        return data


def _fields(table: TableFormat, columns: list[str]) -> dict[str, str]:
    """The columns of a table of numbers by our names."""
    used = {"due": table.time, "prompt_tokens": table.prompt, "output_tokens": table.output}
    used |= {name: column for name, column, _ in table.optional} | {"sizes": table.sizes}
    fields = {name: column for name, column in used.items() if column in columns}
    odd = "service" in fields or table.key in columns or ("prefix" in fields) != ("sizes" in fields)
    if "due" not in fields or odd or len(set(columns)) < len(columns):
        raise NotPlain
    return fields


def _batches(stream: Any, source: Source, table: TableFormat, columns: list[str], fields: dict[str, str]) -> Any:
    second = source.head.split(b"\n", 2)[1:2]
    stamp = pa.timestamp("ns", "UTC" if second and b"+" in second[0] else None)
    times: Any = stamp if table.unit == "iso" else DECIMAL
    kinds = {"due": times, "think": DECIMAL, "prefix": pa.string(), "sizes": pa.string()}
    types = {column: kinds.get(name, pa.int64()) for name, column in fields.items()}
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=columns),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
    )


def _part(batch: Any, table: TableFormat, fields: dict[str, str]) -> Columns:
    """A batch by our names, where no cell is missing, out of bounds or no plain number."""
    if not batch.num_rows or any(column.null_count for column in batch.columns):
        raise NotPlain
    part = {}
    for name, cells in zip(fields, batch.columns, strict=True):
        if name in ("prefix", "sizes"):
            part[name] = _blocks(cells)
            continue
        values = _nanos(cells, table.unit if name == "due" else table.think_unit) if name in TIMES else cells.to_numpy()
        low, high = BOUNDS.get(name, (-(2**63), 2**63 - 1))
        if values.min() < (low and low - table.drop_failures) or values.max() > high:
            raise NotPlain
        # A copy: the batch's memory is free again.
        part[name] = values.astype(SCHEMA.field(name).type.to_pandas_dtype())
    return part


def _nanos(cells: Any, unit: str) -> Any:
    """Raises ArrowInvalid where a digit would be lost."""
    if unit != "iso":
        cells = pc.multiply(cells, pa.scalar(NANOS[unit], pa.decimal128(10, 0)))
    return cells.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _blocks(cells: Any) -> Any:
    """Numbers between spaces, as an array of lists."""
    if not pc.all(pc.match_substring_regex(cells, NUMBERS)).as_py():
        raise NotPlain
    split = pc.split_pattern(cells, " ")  # of an empty cell: one empty text
    counts = np.where(pc.equal(cells, ""), 0, pc.list_value_length(split))
    numbers = pc.list_flatten(split)
    numbers = numbers.filter(pc.not_equal(numbers, "")).cast(pa.int64())
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), numbers)


def _longer(column: Any, values: Any) -> Any:
    """The column with a batch's values behind it; numbers grow in place, so that a trace is never in memory twice."""
    if not isinstance(values, np.ndarray):
        return pa.chunked_array([*(column.chunks if column else ()), values])
    if column is None:
        return values
    rows = len(column)
    column.resize(rows + len(values), refcheck=False)
    column[rows:] = values
    return column


def _ordered(columns: Columns, source: Source, table: TableFormat, options: ReadOptions) -> Trace:
    """The trace of columns that are in order and don't contradict each other."""
    if not columns or ((due := columns["due"])[1:] < due[:-1]).any():
        raise NotPlain
    notes = {}
    if table.drop_failures and not (answered := (columns["prompt_tokens"] > 0) & (columns["output_tokens"] > 0)).all():
        columns = {name: values[answered] for name, values in columns.items()}
        notes[FAILURES] = int(len(answered) - answered.sum())
        if not answered.any():
            raise NotPlain
    sizes = _sizes(columns["prefix"], columns.pop("sizes")) if "prefix" in columns else 0
    if not sizes:
        columns.pop("prefix", None)
    columns["due"] -= beginning(int(columns["due"][0]), table.relative)
    if columns.keys() - {"due", "prompt_tokens", "output_tokens", "prefix"}:
        names = {"index", "session", "parent"} & columns.keys()
        columns |= {name: columns[name].tolist() for name in names}
        columns = linked(columns, columns.get("index", range(len(columns["due"]))), source.name)
    return within(build(columns, name=table.name, block_tokens=sizes, source=source.name, notes=notes), options)


def _sizes(prefix: Any, tokens: Any) -> int | dict[int, int]:
    """Tokens of a block, by block where they differ; 0 for no blocks. A block is always as long."""
    ids, each = pc.list_flatten(prefix).to_numpy(), pc.list_flatten(tokens).to_numpy()
    paired = pc.all(pc.equal(pc.list_value_length(prefix), pc.list_value_length(tokens))).as_py()
    if not paired or each.min(initial=1) < 1:
        raise NotPlain
    if len(each) == 0 or each.min() == each.max():
        return int(each.max(initial=0))
    blocks, first, where = np.unique(ids, return_index=True, return_inverse=True)
    if (each[first][where] != each).any():
        raise NotPlain
    return dict(zip(blocks.tolist(), each[first].tolist(), strict=True))
