"""`Trace`: all rows of what should happen (`request.Request`) as columns; instants and gaps are integer nanoseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import InputError, one_of
from .request import NS_PER_S as NS_PER_S
from .request import Request as Request

Whole = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = dict[str, Any]  # lists or arrays by column name
Notes = dict[str, Any]  # what a reader noticed, JSON-able
NS_PER_MS = 1_000_000
LATEST = 2**62  # ns, of any instant: 146 years
LONGEST = 2**31 - 1  # tokens, as the columns hold them
ASSUMED_TPOT = 20 * NS_PER_MS  # an answer's pace, where a plan needs one; closed loops take the server's own time

SCHEMA = pa.schema({
    "index": pa.int64(), "due": pa.int64(), "prompt_tokens": pa.int32(), "output_tokens": pa.int32(),
    "session": pa.int32(), "turn": pa.int32(), "prefix": pa.list_(pa.int64()), "parent": pa.int64(),
    "think": pa.int64(),
})  # fmt: skip
REQUIRED = ("index", "due", "prompt_tokens", "output_tokens")
DEFAULTS = {"session": -1, "turn": 0, "parent": -1, "think": 0}
KEY = b"phaseload"  # of a packed trace's metadata
BATCH = 8192  # rows turned into Python objects at a time


@dataclass(frozen=True)
class Trace:
    """`table` has columns of `SCHEMA`, sorted by `due` (ns from the trace's start)."""

    table: pa.Table
    name: str = "trace"
    block_tokens: int | Mapping[int, int] = 0  # of a prefix block: one number, or a number by block id (0: no prefixes)
    source: str = ""  # where it came from, as the user named it
    transforms: tuple[str, ...] = ()  # what was done to it since, in words
    notes: Mapping[str, Any] = field(default_factory=dict)  # what its reader noticed, JSON-able, for the run's record

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Request]:
        """Requests one by one; only a batch of them exists at a time."""
        for start in range(0, len(self), BATCH):
            part = self.table.slice(start, BATCH)
            yield from map(Request, *(_values(part, name) for name in SCHEMA.names))

    def __getitem__(self, rows: slice) -> Trace:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        return replace(self, table=self.table.slice(start, max(0, stop - start)))

    @property
    def span(self) -> int:
        """Nanoseconds from the trace's start to its last request."""
        return int(self.table["due"][-1].as_py()) if len(self) else 0

    def has(self, column: str) -> bool:
        """Does the table have this column itself, or only its default?"""
        return column in self.table.column_names

    def column(self, name: str) -> Whole:
        """A column as numpy (all but `prefix`), with its default where the trace doesn't have it."""
        if self.has(name):
            return np.asarray(self.table[name].to_numpy())
        return np.full(len(self), DEFAULTS[name], dtype=SCHEMA.field(name).type.to_pandas_dtype())

    def prefixes(self) -> tuple[Whole, Whole]:
        """(offsets, ids): row i's prefix is ids[offsets[i]:offsets[i + 1]]."""
        if not self.has("prefix"):
            return np.zeros(len(self) + 1, np.int64), np.zeros(0, np.int64)
        array: Any = self.table["prefix"].combine_chunks()
        offsets = np.asarray(array.offsets.to_numpy(), np.int64)
        ids = np.asarray(array.values.to_numpy(zero_copy_only=False), np.int64)
        return offsets - offsets[0], ids[offsets[0] : offsets[-1]]

    def parent_rows(self) -> Whole:
        """For each row, the row of the request that it waits for: -1 for none, or for one that was left out."""
        index, parent = self.column("index"), self.column("parent")
        order = np.argsort(index)
        rows = order[np.searchsorted(index, parent, sorter=order).clip(max=len(index) - 1)]
        return np.where((parent >= 0) & (index[rows] == parent), rows, -1)

    def sizes(self, blocks: Whole) -> Whole:
        """Tokens of each of these prefix blocks."""
        if isinstance(self.block_tokens, int):
            return np.full(len(blocks), self.block_tokens)
        return np.array([self.block_tokens.get(block, 0) for block in blocks.tolist()], np.int64)

    def take(self, rows: npt.NDArray[Any]) -> Trace:
        """The rows of a boolean mask or of ascending positions."""
        chosen = pa.array(rows)
        return replace(self, table=self.table.filter(chosen) if rows.dtype == bool else self.table.take(chosen))

    def with_columns(self, **columns: npt.NDArray[Any]) -> Trace:
        """The trace with these columns of `SCHEMA` (a value for each row) added or put in the place of its own."""
        table = self.table
        for name, values in columns.items():
            array = pa.array(values, SCHEMA.field(name).type)
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, array) if at >= 0 else table.append_column(name, array)
        return replace(self, table=table)

    def noted(self, transform: str) -> Trace:
        """The trace with one more of `transforms`, in words."""
        return replace(self, transforms=(*self.transforms, transform))

    def packed(self) -> pa.Table:
        """The rows with everything else in their metadata, as files hold a trace; `unpacked` reads it."""
        about = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "table"}
        if not isinstance(self.block_tokens, int):
            about["block_tokens"] = list(self.block_tokens.items())
        return self.table.replace_schema_metadata({KEY: json.dumps(about).encode()})

    def fingerprint(self) -> str:
        """32 hex digits of the rows' content: equal on every machine, whatever the name, source, format or chunking."""
        digest = hashlib.blake2b(digest_size=16)
        for name in SCHEMA.names:
            if name == "prefix":
                offsets, ids = self.prefixes()
                if len(ids):
                    _mix(digest, name, offsets, ids, self.sizes(np.unique(ids)))
            elif name not in DEFAULTS or (self.column(name) != DEFAULTS[name]).any():
                _mix(digest, name, self.column(name))
        return digest.hexdigest()


def build(
    columns: Mapping[str, Any], *, name: str = "trace", block_tokens: int | Mapping[int, int] = 0, source: str = "",
    notes: Mapping[str, Any] | None = None,
) -> Trace:  # fmt: skip
    """A Trace from arrays (numpy, Arrow or lists) of one length, by the names of `Request`'s fields: `due` (ascending),
    `prompt_tokens`, `output_tokens`, the rest as wanted; `index` counts rows if not given. Raises InputError with the
    column."""
    columns = {"index": np.arange(len(columns.get("due", ())), dtype=np.int64), **columns}
    for column in columns.keys() - set(SCHEMA.names):
        raise InputError("no such column", where=name, column=column, remedy=one_of(column, SCHEMA.names))
    for column in set(REQUIRED) - columns.keys():
        raise InputError("is missing", where=name, column=column)
    schema = pa.schema([column for column in SCHEMA if column.name in columns])
    arrays = {column.name: _array(columns[column.name], column, name) for column in schema}
    for column, array in arrays.items():
        if len(array) != len(arrays["due"]):
            raise InputError(f"{len(array)} rows, but {len(arrays['due'])} of due", where=name, column=column)
    table = pa.Table.from_arrays(list(arrays.values()), schema=schema)
    due = table["due"].to_numpy()
    if (due[1:] < due[:-1]).any():
        raise InputError("expected ascending instants", where=name, column="due", remedy="sort the rows by it")
    return Trace(table, name=name, block_tokens=block_tokens, source=source, notes=notes or {})


def in_order(columns: Columns) -> Columns:
    """Arrays sorted by `due`, equal ones as they stand; `parent`, which has their positions, follows (-1 stays -1)."""
    order = np.argsort(columns["due"], kind="stable")
    place = np.append(np.argsort(order), -1)
    ordered = {name: values.take(order) for name, values in columns.items()}
    return ordered | {"parent": place[ordered["parent"]]} if "parent" in ordered else ordered


def chain_starts(parents: Whole) -> Whole:
    """For each row, the row with which its chain of parents begins: itself where it waits for nobody. Parents are rows
    (-1: none), each before its followers."""
    first = np.where(parents >= 0, parents, np.arange(len(parents)))
    while ((further := first[first]) != first).any():  # each round looks twice as far back
        first = further
    return first


def unpacked(table: pa.Table) -> Trace:
    """The trace of a packed table, or of a bare one. Metadata of another program raise ValueError or its like."""
    about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    blocks = about.get("block_tokens", 0)
    return Trace(
        table.replace_schema_metadata(None), name=str(about.get("name", "trace")),
        block_tokens=int(blocks) if isinstance(blocks, int) else {int(block): int(size) for block, size in blocks},
        source=str(about.get("source", "")), transforms=tuple(map(str, about.get("transforms", ()))),
        notes=dict(about.get("notes", {})),
    )  # fmt: skip


def _array(values: Any, column: pa.Field[Any], where: str) -> Any:
    kind = column.type
    try:
        return values.cast(kind) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    except (pa.ArrowException, TypeError, OverflowError) as problem:
        raise InputError(str(problem), where=where, column=column.name) from None


def _values(part: pa.Table, name: str) -> Any:
    """A column of a small part as Python values."""
    if name not in part.column_names:
        return [() if name == "prefix" else DEFAULTS[name]] * part.num_rows
    values: Any = part[name].to_pylist()
    return map(tuple, values) if name == "prefix" else values


def _mix(digest: Any, name: str, *arrays: npt.NDArray[Any]) -> None:
    digest.update(name.encode())
    for array in arrays:
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
