"""`read`: a Trace from whatever the user named, its format found by content, never by file name alone."""

from __future__ import annotations

from dataclasses import replace

from .errors import InputError
from .readers import otel, parquet, ragpulse, servegen, sharegpt, table_csv, table_jsonl, weka
from .rows import Options
from .source import Source, sources
from .trace import Trace
from .units import BadCell


def read(
    source: str,
    *,
    skip_bad_rows: bool = False,
    keep_ticks: bool = False,
    seed: int = 0,
    until: int | None = None,
) -> Trace:
    """The trace in a file, a folder or (`-`) standard input; .gz and .zst too.

    until   nanoseconds from the trace's start: reading ends there, so the first minute of a week costs a minute's rows
    seed    for what the format leaves open (where in a coarse tick a request falls); `keep_ticks` leaves ticks alone
    Raises InputError, with file, line, column and remedy, for anything unusable; `skip_bad_rows` counts bad rows into
    `Trace.notes` instead.
    """
    options = Options(skip_bad_rows, keep_ticks, seed, until)
    found = sources(source)
    try:
        trace = _read(found, options, source)
    except BadCell as error:  # about a whole document rather than a row of it
        raise InputError(error.message, where=source, column=error.column or None, remedy=error.remedy) from None
    return replace(trace, source=source)


def _read(found: list[Source], options: Options, where: str) -> Trace:
    if not any(source.head.strip() for source in found):
        raise InputError("is empty", where=where, remedy="expected a trace")
    if any(ragpulse.is_requests(table_jsonl.keys(source.head) or []) for source in found):
        return ragpulse.read(found, options)
    if all(_looks_like(source, weka.KEYS) for source in found):
        return weka.read(found, options)
    if servegen.is_set(found):
        return servegen.read(found, options)
    if any(all(_looks_like(source, keys) for source in found) for keys in otel.KEYS):
        return otel.read(found, options)
    if len(found) > 1:
        raise InputError("a folder of several files of no known format", where=where, remedy="name one file")
    return _table(found[0], options)


def _table(source: Source, options: Options) -> Trace:
    if source.head.startswith(parquet.MAGIC):
        return parquet.read(source, options)
    if source.head.lstrip().startswith(b"["):
        return sharegpt.read(source, options)
    if source.head.lstrip().startswith(b"{"):
        return table_jsonl.read(source, options)
    return table_csv.read(source, options)


def _looks_like(source: Source, keys: tuple[bytes, ...]) -> bool:
    """Is it one JSON object with these keys near its start?"""
    return source.head.lstrip().startswith(b"{") and all(b'"%b"' % key in source.head for key in keys)
