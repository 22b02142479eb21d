"""`open_trace`: a Trace from whatever the user named, its format found by content, never by file name alone. `write`:
a Trace into a file of our own, which read again gives the same rows."""

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

from .errors import InputError, one_of
from .files import Source, sources
from .formats import conversations, csv_table, servegen, tables
from .formats.cells import BadCell, keys, mapping, parse
from .formats.rows import ReadOptions, Row, within
from .trace import LATEST, NS_PER_S, REQUIRED, SCHEMA, Trace, unpacked
from .workload import WORKLOADS, synthesise

MAGIC = b"PAR1"  # of Parquet
PACKED = (".gz", ".zst")  # which Arrow knows
NAMES = {"due": "due_ns", "think": "think_ns"}  # of our columns, where they have others in text files


def open_trace(
    name: str | Path, *, until: float | None = None, skip_bad_rows: bool = False, keep_ticks: bool = False,
    columns: str | None = None, seed: int = 0,
) -> Trace:  # fmt: skip
    """A file or folder (plain, gzip or zstd), standard input (`-`), or a bundled workload; a file wins over a workload
    of its name. `until`: seconds from the trace's start, at which reading ends, so the first minute of a week costs a
    minute's rows (without it a workload is as long as it says itself). `skip_bad_rows` counts what can't be used into
    `Trace.notes` instead of refusing it; `keep_ticks` leaves coarse timestamps on their ticks; `columns` names those of
    a table that has other names ("due_s=start_time,prompt_tokens=in"); `seed` is for what the format leaves open.
    Raises InputError, with file, line, column and remedy, for anything unusable."""
    name = str(name)
    if until is not None and not 1 <= until * NS_PER_S <= LATEST:  # NaN neither
        raise InputError(f"can't be read until {until:g} s", where=name, remedy="expected seconds above 0")
    names = tables.names_of(columns) if columns else {}
    if name == "-" or Path(name).exists():
        until_ns = None if until is None else round(until * NS_PER_S)
        trace = _read(name, ReadOptions(skip_bad_rows, keep_ticks, seed, until_ns, names))
    elif is_workload(name):
        trace = synthesise(name, duration=until, seed=seed)
    else:
        raise InputError("no such file, and no bundled workload", where=name, remedy=one_of(name, WORKLOADS))
    if names and trace.name not in {table.name for table in tables.TABLES}:
        raise InputError("is no table, and has no columns", where=name, remedy="leave out --columns")
    return trace


def is_workload(name: str) -> bool:
    """Is it a bundled workload, and no file of this name?"""
    return name in WORKLOADS and not Path(name).exists()


def _read(name: str, options: ReadOptions) -> Trace:
    try:
        trace = _of_files(sources(name), options, name)
    except BadCell as error:  # about a whole document rather than a row of it
        raise InputError(error.message, where=name, column=error.column or None, remedy=error.remedy) from None
    notes = {**trace.notes, "columns": dict(options.names)} if options.names else trace.notes
    return replace(trace, source=name, notes=notes)


def _of_files(files: list[Source], options: ReadOptions, where: str) -> Trace:
    """By the format that the files' first bytes show; more particular formats are tried first."""
    if not any(source.head.strip() for source in files):
        raise InputError("is empty", where=where, remedy="expected a trace")
    if any(tables.is_ragpulse(keys(source.head)) for source in files):
        return tables.read_ragpulse(files, options)
    if all(_has_keys(source, conversations.WEKA_KEYS) for source in files):
        return conversations.read_weka(files, options)
    if servegen.is_set(files):
        return servegen.read(files, options)
    if any(all(_has_keys(source, (key,)) for source in files) for key in conversations.SPAN_KEYS):
        return conversations.read_spans(files, options)
    if len(files) > 1:
        raise InputError("a folder of several files of no known format", where=where, remedy="name one file")
    return _of_file(files[0], options)


def _of_file(source: Source, options: ReadOptions) -> Trace:
    if source.head.startswith(MAGIC):
        return read_parquet(source, options)
    if source.head.lstrip().startswith(b"["):
        return conversations.read_sharegpt(source, options)
    if source.head.lstrip().startswith(b"{"):
        table, _ = tables.format_of(keys(source.head), source.name, options.names)
        named = lambda line: {options.names.get(key, key): cell for key, cell in mapping(parse(line)).items()}  # noqa: E731
        return tables.read_rows(source, table, options, source.lines(), named if options.names else parse)
    return csv_table.read(source, options)


def _has_keys(source: Source, keys: tuple[bytes, ...]) -> bool:
    """Is it one JSON object with these keys near its start?"""
    return source.head.lstrip().startswith(b"{") and all(b'"%b"' % key in source.head for key in keys)


def write(trace: Trace, path: str | Path) -> None:
    """By the path's ending .parquet, .jsonl or .csv, the latter two also .gz, .zst. Text files hold only what the trace
    has: due_ns, lengths, and where there is more to write index, session, turn, parent, think_ns, prefix with the
    blocks' own lengths. Raises InputError for an ending that isn't ours or a place that can't be written."""
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
                rows = csv.writer(text, lineterminator="\n")
                names = [NAMES.get(name, name) for name in _columns(trace)]
                rows.writerow(names + ["prefix_tokens"] * trace.has("prefix"))
                for cells in (row.values() for row in _rows(trace)):
                    rows.writerow([cell if isinstance(cell, int) else " ".join(map(str, cell)) for cell in cells])
        else:
            raise InputError("unknown ending", where=path, remedy="end in .parquet, .jsonl or .csv (.gz, .zst)")
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", where=path, remedy="check the path") from None


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
