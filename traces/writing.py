"""`write`: a Trace to a file of our own, by the file's ending: .parquet, .jsonl or .csv, the latter two also .gz, .zst.

Reading any of them again gives the same rows. Text files hold only what the trace has: due_ns, lengths, and where
there is more to write index, session, turn, parent, think_ns, prefix with the blocks' own lengths.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import orjson
import pyarrow as pa

from .errors import InputError
from .formats import parquet
from .formats.rows import Row
from .trace import Request, Trace

CODECS: Mapping[str, Any] = {".gz": "gzip", ".zst": "zstd"}


def write(trace: Trace, path: str) -> None:
    """Raises InputError for an ending that isn't ours or a place that can't be written."""
    plain = Path(path).with_suffix("") if Path(path).suffix in CODECS else Path(path)
    try:
        if path.endswith(".parquet"):
            parquet.write(trace, Path(path))
        elif plain.suffix == ".jsonl":
            with _opened(path) as out:
                out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in _rows(trace))
        elif plain.suffix == ".csv":
            with _opened(path) as out, io.TextIOWrapper(out, newline="") as text:
                _write_csv(trace, text)
        else:
            raise InputError("unknown ending", where=path, remedy="end in .parquet, .jsonl or .csv (.gz, .zst)")
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", where=path, remedy="check the path") from None


def _write_csv(trace: Trace, text: IO[str]) -> None:
    rows = csv.DictWriter(text, _columns(trace), lineterminator="\n")
    rows.writeheader()
    for row in _rows(trace):
        rows.writerow(
            {name: " ".join(map(str, cell)) if isinstance(cell, list) else cell for name, cell in row.items()}
        )


def _rows(trace: Trace) -> Iterator[Row]:
    columns = _columns(trace)
    for request in trace:
        row = _row(request, trace.block_tokens)
        yield {name: row[name] for name in columns}


def _row(request: Request, sizes: Any) -> Row:
    return {
        "index": request.index,
        "due_ns": request.due,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "session": request.session,
        "turn": request.turn,
        "parent": request.parent,
        "think_ns": request.think,
        "prefix": list(request.prefix),
        "prefix_tokens": [sizes if isinstance(sizes, int) else sizes[block] for block in request.prefix],
    }


def _columns(trace: Trace) -> list[str]:
    has = set(trace.table.column_names)
    names = {"due": "due_ns", "think": "think_ns"}
    counted = (trace.column("index") == range(len(trace))).all()
    listed = [names.get(name, name) for name in trace.table.column_names if not (name == "index" and counted)]
    return listed + ["prefix_tokens"] * ("prefix" in has)


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    codec = CODECS.get(Path(path).suffix)
    with pa.OSFile(path, "wb") as raw:
        if codec is None:
            yield cast(IO[bytes], raw)
        else:
            with pa.CompressedOutputStream(raw, codec) as packed:
                yield cast(IO[bytes], packed)
