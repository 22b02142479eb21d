"""`read`: a Trace from whatever the user named, its format found by content, never by file name alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .errors import InputError
from .files import Source, sources
from .formats import csv_table, jsonl, otel, parquet, ragpulse, servegen, sharegpt, weka
from .formats.cells import BadCell
from .formats.rows import Options
from .synthesis.workload import WORKLOADS, synthesise
from .trace import LATEST, NS_PER_S, Trace


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
    if any(ragpulse.is_requests(jsonl.keys(source.head) or []) for source in found):
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
        return jsonl.read(source, options)
    return csv_table.read(source, options)


def _looks_like(source: Source, keys: tuple[bytes, ...]) -> bool:
    """Is it one JSON object with these keys near its start?"""
    return source.head.lstrip().startswith(b"{") and all(b'"%b"' % key in source.head for key in keys)


def open_trace(
    name: str, *, until: float | None = None, skip_bad_rows: bool = False, keep_ticks: bool = False, seed: int = 0
) -> Trace:
    """A file or folder, standard input (`-`), or a bundled workload; a file wins over a workload of its name.

    until   seconds from the trace's start; without it a workload is as long as it says itself
    Raises InputError, as `read` and `synthesise` do.
    """
    if until is not None and not 1 <= until * NS_PER_S <= LATEST:  # NaN neither
        raise InputError(f"can't be read until {until:g} s", where=name, remedy="expected seconds above 0")
    if name == "-" or Path(name).exists():
        end = None if until is None else round(until * NS_PER_S)
        return read(name, skip_bad_rows=skip_bad_rows, keep_ticks=keep_ticks, seed=seed, until=end)
    if name in WORKLOADS:
        return synthesise(name, duration=until, seed=seed)
    raise InputError("no such file, and no bundled workload", where=name, remedy=f"bundled: {', '.join(WORKLOADS)}")
