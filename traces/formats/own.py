"""Our own files: `write` puts a Trace into one, by its ending .parquet, .jsonl or .csv, the latter two also .gz, .zst;
`read_parquet` reads a packed trace (`tables` has the text files).

Reading any of them again gives the same rows. Text files hold only what the trace has: due_ns, lengths, and where
there is more to write index, session, turn, parent, think_ns, prefix with the blocks' own lengths.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet

from ..errors import InputError
from ..files import Source
from ..trace import REQUIRED, SCHEMA, Trace, unpacked
from .rows import ReadOptions, Row, within

MAGIC = b"PAR1"  # of Parquet
PACKED = (".gz", ".zst")  # which Arrow knows
NAMES = {"due": "due_ns", "think": "think_ns"}  # of our columns, where they have others in text files


def write(trace: Trace, path: str | Path) -> None:
    """Raises InputError for an ending that isn't ours or a place that can't be written."""
    path = str(path)
    plain = Path(path).with_suffix("") if Path(path).suffix in PACKED else Path(path)
    try:
        if path.endswith(".parquet"):
            pyarrow.parquet.write_table(trace.packed(), path, compression="zstd")
        elif plain.suffix == ".jsonl":
            with pa.output_stream(path) as out:
                out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in _rows(trace))
        elif plain.suffix == ".csv":
            with pa.output_stream(path) as out, io.TextIOWrapper(cast(IO[bytes], out), newline="") as text:
                _write_csv(trace, text)
        else:
            raise InputError("unknown ending", where=path, remedy="end in .parquet, .jsonl or .csv (.gz, .zst)")
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", where=path, remedy="check the path") from None


def _write_csv(trace: Trace, text: IO[str]) -> None:
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([NAMES.get(name, name) for name in _columns(trace)] + ["prefix_tokens"] * trace.has("prefix"))
    for row in _rows(trace):
        rows.writerow([cell if isinstance(cell, int) else " ".join(map(str, cell)) for cell in row.values()])


def _rows(trace: Trace) -> Iterator[Row]:
    sizes, columns, has_prefixes = trace.block_tokens, _columns(trace), trace.has("prefix")
    for request in trace:
        row = {NAMES.get(name, name): getattr(request, name) for name in columns}
        if has_prefixes:
            row["prefix_tokens"] = [sizes if isinstance(sizes, int) else sizes[block] for block in request.prefix]
        yield row


def _columns(trace: Trace) -> list[str]:
    """What the trace has, but for an index that only counts its rows."""
    counted = (trace.column("index") == range(len(trace))).all()
    return [name for name in trace.table.column_names if not (name == "index" and counted)]


def read_parquet(source: Source, options: ReadOptions) -> Trace:
    try:
        with source.open() as stream:
            table = pyarrow.parquet.read_table(pa.BufferReader(stream.read()))
        table = table.select([name for name in SCHEMA.names if name in table.column_names])
        trace = replace(unpacked(_cast(table, source.name)), source=source.name)
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        problem = f"not a Parquet trace: {str(error)[:120]}"
        raise InputError(problem, where=source.name, remedy="write it again") from None
    _check(trace, source.name)
    return within(trace, options)


def _cast(table: pa.Table, where: str) -> pa.Table:
    for name in REQUIRED:
        if name not in table.column_names:
            raise InputError(f"expected column {name!r}", where=where, column=name, remedy="see docs/traces.md")
    for name in table.column_names:
        if table[name].null_count:
            raise InputError("holds empty cells", where=where, column=name, remedy="write it again without them")
    metadata: Any = table.schema.metadata
    return table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names], metadata=metadata))


def _check(trace: Trace, where: str) -> None:
    """The promises of `Trace`, which a file from elsewhere may not keep. Rows count from 1."""
    due = trace.column("due")
    wrong = {
        "due": np.append(False, np.diff(due) < 0) | (due < 0),
        "prompt_tokens": trace.column("prompt_tokens") < 1,
        "output_tokens": trace.column("output_tokens") < 0,
    }
    for name, mask in wrong.items():
        if mask.any():
            what = "a time that is negative or earlier than the row before it" if name == "due" else "a bad length"
            raise InputError(what, where=where, line=int(mask.argmax()) + 1, column=name, remedy="correct the file")
    if not len(trace):
        raise InputError("holds no request", where=where, remedy="is it the right file?")
    if len(np.unique(trace.column("index"))) < len(trace):
        raise InputError("the same index twice", where=where, column="index", remedy="number the rows")
