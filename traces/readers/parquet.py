"""Our own Parquet: the columns of `Request` as they are, with name, source, block sizes and history in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ..errors import InputError
from ..rows import Options, within
from ..source import Source
from ..trace import REQUIRED, SCHEMA, Trace

MAGIC = b"PAR1"
KEY = b"phaseload"


def read(source: Source, options: Options) -> Trace:
    try:
        with source.open() as stream:
            table = pyarrow.parquet.read_table(pa.BufferReader(stream.read()))
        table = table.select([name for name in SCHEMA.names if name in table.column_names])
        about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
        trace = Trace(
            _cast(table, source.name),
            name=str(about.get("name", "parquet")),
            block_tokens=_blocks(about.get("block_tokens", 0)),
            source=source.name,
            transforms=tuple(map(str, about.get("transforms", ()))),
            notes=dict(about.get("notes", {})),
        )
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"not a Parquet trace: {str(error)[:120]}", where=source.name, remedy="write it again"
        ) from None
    _check(trace, source.name)
    return within(trace, options)


def write(trace: Trace, path: Path) -> None:
    blocks = trace.block_tokens
    about = {
        "name": trace.name,
        "block_tokens": blocks if isinstance(blocks, int) else list(blocks.items()),
        "transforms": trace.transforms,
        "notes": dict(trace.notes),
        "source": trace.source,
    }
    metadata = {KEY: json.dumps(about).encode()}
    pyarrow.parquet.write_table(trace.table.replace_schema_metadata(metadata), path, compression="zstd")


def _cast(table: pa.Table, where: str) -> pa.Table:
    for name in REQUIRED:
        if name not in table.column_names:
            raise InputError(f"expected column {name!r}", where=where, column=name, remedy="see docs/traces.md")
    for name in table.column_names:
        if table[name].null_count:
            raise InputError("holds empty cells", where=where, column=name, remedy="write it again without them")
    metadata: Any = table.schema.metadata
    return table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names], metadata=metadata))


def _blocks(value: Any) -> int | dict[int, int]:
    return int(value) if isinstance(value, int) else {int(one): int(size) for one, size in value}


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
