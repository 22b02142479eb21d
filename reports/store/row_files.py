"""Result files: rows of `Exchange` in Parquet, written while the run goes on.

Theory of operation. `append` only puts the finished exchange into a deque. `flush` drains it and writes one new small
file, first under a temporary name, then renamed: a reader sees whole files only, and `kill -9` loses what was not yet
flushed and nothing else. Flushing takes milliseconds of CPU, so a worker runs it in a native thread while its loop
goes on appending; deque operations are atomic, so appends and even two flushes at once neither lose nor repeat a row,
without a lock (a lock would be gevent's own here, and those don't work across native threads).

Pandas is never imported here: workers write these files.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from targets.exchange import Exchange
from traces.errors import InputError
from traces.files import regular, whole

FOLDER = "exchanges"

_LARGEST = 2**63 - 1
_LIST = pa.list_(pa.int64())
_TYPES = {
    "int": pa.int64(), "int | None": pa.int64(), "float | None": pa.float64(), "str": pa.string(),
    "str | None": pa.string(), "bool": pa.bool_(), "Outcome": pa.string(), "array[int]": _LIST,
}  # fmt: skip

IN_NO_ROW = ("call", "text", "unterminated")
# The columns, in their order: name, where an exchange has it, its Python type. First the call's, then a column for each
# field of Exchange. Instants are int64 nanoseconds from the run's start.
_COLUMNS = [
    ("index", "call.request.index", "int"), ("target", "call.target", "str"), ("due", "call.due", "int"),
    ("prompt_tokens", "call.request.prompt_tokens", "int"), ("output_tokens", "call.request.output_tokens", "int"),
    ("step", "call.step", "str"), ("session", "call.request.session", "int"), ("turn", "call.request.turn", "int"),
    ("planned", "call.planned", "int | None"), ("counted", "call.counted", "bool"), ("attempt", "call.attempt", "int"),
    *((field.name, field.name, str(field.type)) for field in fields(Exchange) if field.name not in IN_NO_ROW),
]  # fmt: skip
SCHEMA = pa.schema([pa.field(name, _TYPES[kind], nullable=kind.endswith("| None")) for name, _, kind in _COLUMNS])
LATER = ("body_end",)  # columns that runs of earlier versions lack: null there
_VALUES = {name: attrgetter(path) for name, path, _ in _COLUMNS}


class Writer:
    """Writes one worker's exchanges to `<run>/exchanges/<worker>-<n>.parquet`, n counting on from what is there."""

    def __init__(self, run: Path | str, worker: int | str) -> None:
        self.folder = Path(run) / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = worker
        self.rows = 0  # written so far
        self._pending: deque[Exchange] = deque()
        taken = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{worker}-*.parquet")]
        self._numbers = itertools.count(max(taken, default=-1) + 1)

    def append(self, exchange: Exchange) -> None:
        self._pending.append(exchange)

    def __len__(self) -> int:
        """Rows not yet written."""
        return len(self._pending)

    def flush(self) -> Path | None:
        """Writes what is pending as one new file; None where there is nothing. OSError: the rows stay pending."""
        rows = []
        with suppress(IndexError):  # another flush was faster
            for _ in range(len(self._pending)):
                rows.append(self._pending.popleft())  # noqa: PERF401 - what was taken stays
        if not rows:
            return None
        path = self.folder / f"{self.worker}-{next(self._numbers):05d}.parquet"
        try:
            with whole(path) as partial:
                pq.write_table(table(rows), partial, compression="zstd")
        except OSError:
            self._pending.extendleft(reversed(rows))
            raise
        self.rows += len(rows)
        return path


def table(rows: Sequence[Exchange], schema: pa.Schema = SCHEMA) -> pa.Table:
    """The rows as an Arrow table of SCHEMA, or of some of its columns."""
    return pa.Table.from_arrays([_column(list(map(_VALUES[each.name], rows)), each) for each in schema], schema=schema)


# Arrays are made from buffers, because the first call of `pa.array` imports pandas (0.5 s and 40 MB a worker).


def _column(values: list[Any], column: pa.Field[Any]) -> pa.Array[Any]:
    if pa.types.is_list(column.type):
        return _lists(values)
    present = np.array([value is not None for value in values])
    if column.nullable and not present.any():
        return pa.nulls(len(values), column.type)
    valid = _bits(present) if column.nullable else None
    if pa.types.is_string(column.type):
        texts = [b"" if value is None else str(value).encode("utf-8", "replace") for value in values]
        return pa.Array.from_buffers(column.type, len(values), [valid, _ends(texts), pa.py_buffer(b"".join(texts))])
    if pa.types.is_boolean(column.type):
        return pa.Array.from_buffers(column.type, len(values), [valid, _bits(np.array(values, np.bool_))])
    number = np.int64 if pa.types.is_integer(column.type) else np.float64
    numbers = [0 if value is None else value for value in values]
    try:
        packed = np.array(numbers, number)
    except OverflowError:  # a server's number may be anything; one row must not hold up the others
        packed = np.array([max(-_LARGEST, min(_LARGEST, value)) for value in numbers], number)
    return pa.Array.from_buffers(column.type, len(values), [valid, pa.py_buffer(packed)])


def _bits(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _ends(parts: Sequence[Sized]) -> pa.Buffer:
    """The ends of the parts in their concatenation."""
    ends = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    return pa.py_buffer(ends)


def _lists(values: list[array[int]]) -> pa.Array[Any]:
    """Token lists without a Python object for each token."""
    flat = array("q")
    for value in values:
        flat.extend(value if value.typecode == "q" else array("q", value))
    tokens = pa.Array.from_buffers(pa.int64(), len(flat), [None, pa.py_buffer(flat)])
    return pa.Array.from_buffers(_LIST, len(values), [None, _ends(values)], children=[tokens])


def files(run: Path | str) -> list[Path]:
    """The run's row files, in a stable order. InputError where there are none."""
    folder = Path(run) / FOLDER
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        remedy = "give a run folder that `phaseload replay` wrote"
        raise InputError("no recorded exchanges here", where=str(folder), remedy=remedy)
    return paths


def batches(
    run: Path | str,
    columns: Sequence[str] = SCHEMA.names,
    damaged: dict[str, InputError] | None = None,
    planned: Collection[tuple[str, str]] = (),
) -> Iterator[pa.Table]:
    """One table for each file: a long run's token lists need not fit into memory together. InputError for a file that
    can't be read, or has rows of other targets and steps than those planned; where `damaged` is given, it takes file
    name and error instead, and the other files are read."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    for path in files(run):
        try:
            rows = _read(path, schema)
            groups = rows.group_by(["target", "step"]).aggregate([]).to_pylist() if planned else ()
            if any((group["target"], group["step"]) not in planned for group in groups):
                raise InputError("rows of no target and step of the run", where=str(path))
            yield rows
        except InputError as error:
            if damaged is None:
                raise
            damaged[path.name] = error


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        there = pq.read_schema(regular(path)).names
        if absent := [name for name in schema.names if name not in (*there, *LATER)]:
            remedy = "written by another version?"
            raise InputError("column is missing", where=str(path), column=absent[0], remedy=remedy)
        rows = pq.read_table(path, columns=[name for name in schema.names if name in there])
        for column in (SCHEMA.field(name) for name in schema.names if name not in there):
            rows = rows.append_column(column, pa.nulls(len(rows), column.type))
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise InputError(f"not a readable Parquet file of exchanges: {problem}", where=str(path)) from None


def read_file(path: Path) -> pa.Table:
    """All rows of one file. Raises InputError."""
    return _read(path, SCHEMA)


def read(run: Path | str, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """All rows of a run, in the order of its files."""
    return pa.concat_tables(list(batches(run, columns)))
