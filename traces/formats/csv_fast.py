"""CSV tables of plain numbers and times through Arrow's parser: millions of rows a second, as many as `until` asks for.

It gives up, with None, at whatever isn't plain: an empty cell, a number out of bounds or in words of its own, rows out
of order, blocks that contradict each other.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..files import Source
from ..trace import Trace, build
from .cells import LARGEST_INSTANT, LARGEST_LENGTH, NANOS
from .columns import FAILURES, TableFormat
from .rows import Options, beginning, linked, within

BLOCK = 4 << 20  # bytes parsed at a time
DECIMAL = pa.decimal128(27, 9)  # its 38 digits hold it and its nanoseconds
NUMBERS = "^(-?[0-9]{1,18}( -?[0-9]{1,18})*)?$"
TIMES = ("due", "think")
BOUNDS = {
    **dict.fromkeys(TIMES, (-LARGEST_INSTANT, LARGEST_INSTANT)),
    "prompt_tokens": (1, LARGEST_LENGTH),
    "output_tokens": (0, LARGEST_LENGTH),
    "session": (-1, LARGEST_LENGTH),
    "turn": (0, LARGEST_LENGTH),
}


def read(source: Source, columns: list[str], form: TableFormat, options: Options) -> Trace | None:
    """None where the careful way has to look."""
    fields = _fields(form, columns)
    if fields is None:
        return None
    parts: list[dict[str, Any]] = []
    try:
        with source.open() as stream:
            first = None
            for batch in _batches(_Decimal(stream), source, form, fields):
                part = _part(batch, form, fields)
                if part is None:
                    return None
                first = beginning(int(part["due"][0]), form.relative) if first is None else first
                parts.append(part)
                if options.until is not None and part["due"][-1] - first > options.until:
                    break
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    if not parts:
        return None
    found = {name: _joined([part.pop(name) for part in parts]) for name in fields}
    return _ordered(found, source, form, options)


class _Decimal(io.RawIOBase):
    """A table whose rows hold no x: Arrow would take 0x10 for a number."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self._header = stream, stream.readline()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        header, self._header = self._header, b""
        data = self._stream.read(size)
        if b"x" in data or b"X" in data:
            raise pa.ArrowInvalid("no decimal numbers")
        return header + data


def _fields(form: TableFormat, columns: list[str]) -> dict[str, str] | None:
    """Columns by our names, or None for tables that say more than numbers can."""
    used = {"due": form.time, "prompt_tokens": form.prompt, "output_tokens": form.output}
    used |= {name: column for name, column, _ in form.optional} | {"sizes": form.sizes}
    found = {name: column for name, column in used.items() if column in columns}
    odd = "service" in found or form.key in columns or ("prefix" in found) != ("sizes" in found)
    return None if "due" not in found or odd or len(set(columns)) < len(columns) else found


def _batches(stream: Any, source: Source, form: TableFormat, fields: dict[str, str]) -> Any:
    second = source.head.split(b"\n", 2)[1:2]
    stamp = pa.timestamp("ns", "UTC" if second and b"+" in second[0] else None)
    times: Any = stamp if form.unit == "iso" else DECIMAL
    kinds = {"due": times, "think": DECIMAL, "prefix": pa.string(), "sizes": pa.string()}
    types = {column: kinds.get(name, pa.int64()) for name, column in fields.items()}
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
    )


def _part(batch: Any, form: TableFormat, fields: dict[str, str]) -> dict[str, Any] | None:
    """A batch by our names, or None if a cell is missing, out of bounds or no plain number."""
    if not batch.num_rows or any(column.null_count for column in batch.columns):
        return None
    part = {}
    for name, cells in zip(fields, batch.columns, strict=True):
        if name in ("prefix", "sizes"):
            part[name] = _blocks(cells)
            continue
        values = _nanos(cells, form.unit if name == "due" else form.think_unit) if name in TIMES else cells.to_numpy()
        low, high = BOUNDS.get(name, (-(2**63), 2**63 - 1))
        if values.min() < (low and low - form.drop_failures) or values.max() > high:
            return None
        part[name] = values
    return None if any(values is None for values in part.values()) else part


def _nanos(cells: Any, unit: str) -> Any:
    """Raises ArrowInvalid where a digit would be lost."""
    if unit != "iso":
        cells = pc.multiply(cells, pa.scalar(NANOS[unit], pa.decimal128(10, 0)))
    return cells.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _blocks(cells: Any) -> Any:
    """Numbers between spaces, as an array of lists."""
    if not pc.all(pc.match_substring_regex(cells, NUMBERS)).as_py():
        return None
    split = pc.split_pattern(cells, " ")  # of an empty cell: one empty text
    counts = np.where(pc.equal(cells, ""), 0, pc.list_value_length(split))
    numbers = pc.list_flatten(split)
    numbers = numbers.filter(pc.not_equal(numbers, "")).cast(pa.int64())
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), numbers)


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pa.chunked_array(parts)


def _ordered(found: dict[str, Any], source: Source, form: TableFormat, options: Options) -> Trace | None:
    """The trace of columns in order, or None if they aren't, or contradict each other."""
    if (np.diff(found["due"]) < 0).any():
        return None
    notes = {}
    if form.drop_failures and not (answered := (found["prompt_tokens"] > 0) & (found["output_tokens"] > 0)).all():
        found = {name: values[answered] for name, values in found.items()}
        notes[FAILURES] = int(len(answered) - answered.sum())
        if not len(found["due"]):
            return None
    sizes = _sizes(found["prefix"], found.pop("sizes")) if "prefix" in found else 0
    if sizes is None:
        return None
    if not sizes:
        found.pop("prefix", None)
    found["due"] = found["due"] - beginning(int(found["due"][0]), form.relative)
    if found.keys() - {"due", "prompt_tokens", "output_tokens", "prefix"}:
        names = {"index", "session", "parent"} & found.keys()
        found |= {name: found[name].tolist() for name in names}
        found = linked(found, found.get("index", range(len(found["due"]))), source.name)
    return within(build(found, name=form.name, block_tokens=sizes, source=source.name, notes=notes), options)


def _sizes(prefix: Any, tokens: Any) -> int | dict[int, int] | None:
    """Tokens of a block, by block where they differ; 0 for no blocks, None for blocks that aren't always as long."""
    if not pc.all(pc.equal(pc.list_value_length(prefix), pc.list_value_length(tokens))).as_py():
        return None
    ids, each = pc.list_flatten(prefix).to_numpy(), pc.list_flatten(tokens).to_numpy()
    if len(each) == 0 or each.min() == each.max():
        return int(each.max(initial=0)) if each.min(initial=1) > 0 else None
    blocks, first, where = np.unique(ids, return_index=True, return_inverse=True)
    if each.min() < 1 or (each[first][where] != each).any():
        return None
    return dict(zip(blocks.tolist(), each[first].tolist(), strict=True))
