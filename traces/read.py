"""`read`: a Trace from whatever the user named, its format found by content, never by file name alone."""

from __future__ import annotations

from .errors import InputError
from .readers import parquet, table_csv, table_jsonl
from .rows import Options
from .source import Source, sources
from .trace import Trace


def read(
    source: str,
    *,
    skip_bad_rows: bool = False,
    keep_ticks: bool = False,
    seed: int = 0,
    until: int | None = None,
    limit: int | None = None,
) -> Trace:
    """The trace in a file, a folder or (`-`) standard input; .gz and .zst too.

    until   nanoseconds from the trace's start: reading ends there, so the first minute of a week costs a minute's rows
    limit   rows, at most
    seed    for what the format leaves open (where in a coarse tick a request falls); `keep_ticks` leaves ticks alone
    Raises InputError, with file, line, column and remedy, for anything unusable; `skip_bad_rows` counts bad rows into
    `Trace.notes` instead.
    """
    options = Options(skip_bad_rows, keep_ticks, seed, until, limit)
    found = sources(source)
    if len(found) > 1:
        raise InputError("a folder of several files of no known format", where=source, remedy="name one file")
    return _one(found[0], options)


def _one(source: Source, options: Options) -> Trace:
    head = source.head
    if not head.strip():
        raise InputError("is empty", where=source.name, remedy="expected a trace")
    if head.startswith(parquet.MAGIC):
        return parquet.read(source, options)
    if head.lstrip().startswith((b"{", b"[")):
        return table_jsonl.read(source, options)
    return table_csv.read(source, options)
