"""`open_trace`: a Trace from whatever the user named, its format found by content, never by file name alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .errors import InputError, one_of
from .files import Source, sources
from .formats import conversations, csv_table, own, servegen, tables
from .formats.cells import BadCell, keys, mapping, parse
from .formats.rows import ReadOptions
from .trace import LATEST, NS_PER_S, Trace
from .workload import WORKLOADS, synthesise


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
    elif name in WORKLOADS:
        trace = synthesise(name, duration=until, seed=seed)
    else:
        raise InputError("no such file, and no bundled workload", where=name, remedy=one_of(name, WORKLOADS))
    if names and trace.name not in {table.name for table in tables.TABLES}:
        raise InputError("is no table, and has no columns", where=name, remedy="leave out --columns")
    return trace


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
    if source.head.startswith(own.MAGIC):
        return own.read_parquet(source, options)
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
