"""Our own Parquet: a packed trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ..errors import InputError
from ..files import Source
from ..trace import REQUIRED, SCHEMA, Trace, unpacked
from .rows import Options, within

MAGIC = b"PAR1"


def read(source: Source, options: Options) -> Trace:
    try:
        with source.open() as stream:
            table = pyarrow.parquet.read_table(pa.BufferReader(stream.read()))
        table = table.select([name for name in SCHEMA.names if name in table.column_names])
        trace = replace(unpacked(_cast(table, source.name)), source=source.name)
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"not a Parquet trace: {str(error)[:120]}", where=source.name, remedy="write it again"
        ) from None
    _check(trace, source.name)
    return within(trace, options)


def write(trace: Trace, path: Path) -> None:
    pyarrow.parquet.write_table(trace.packed(), path, compression="zstd")


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
