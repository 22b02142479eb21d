"""From rows, one at a time, to a `Trace`: the careful way, which every reader of text shares.

A reader gives each row as a dict of `Request` fields; here rows are counted, put in order, set relative to the first,
and their parents and sessions (any hashable key) become numbers. Bad rows are refused with file, line and column unless
the user chose to skip them; then they are counted into the trace's notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ..errors import InputError
from ..trace import LONGEST, NS_PER_S, Columns, Notes, Trace, build, chain_starts
from ..transforms import pace
from .cells import BadCell

SHOWN_REASONS = 5
YEAR = 366 * 86400 * NS_PER_S
ASSUMED_RATE = 1.0  # requests/s, where a format has no instants
COARSE = NS_PER_S // 10  # ns; finer steps are a clock's resolution, not ticks
CROWDED = 2  # requests a tick, at least


Row = dict[str, Any]  # a request by the fields of `Request`, its session and parent by any keys


@dataclass(frozen=True)
class ReadOptions:
    """How to read, as `traces.open_trace` has it. `until_ns` from the trace's start ends the reading early."""

    skip_bad_rows: bool = False
    keep_ticks: bool = False
    seed: int = 0
    until_ns: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)  # our columns' names by the file's


@dataclass
class Rows:
    """Collects the rows of one source, or of several files of one trace."""

    where: str
    options: ReadOptions
    unordered: bool = False  # the format is known to come out of order: sorted without a note
    relative: bool = False  # instants count from the trace's start already, unless they look like a calendar's
    notes: Notes = field(default_factory=dict)
    _columns: dict[str, list[Any]] = field(default_factory=dict)
    _keys: list[Hashable] = field(default_factory=list)
    _last: int | None = None
    _first: int | None = None
    _bad: Counter[str] = field(default_factory=Counter)
    _sorted: bool = True

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def full(self) -> bool:
        """Has the part that the user asked for been read? Only a trace in order shows it by time."""
        until = self.options.until_ns
        if until is None or self._last is None or self.unordered:
            return False
        return bool(self._last - self._first_due() > until)

    def add(self, line: int | None, row: Row, key: Hashable = None, time_column: str = "due") -> None:
        """One good row, of a line where the file has lines; `key` names it for its children's `parent`."""
        due = row["due"]
        if self._last is not None and due < self._last:
            self._sorted = False
            if not self.unordered:
                if not self.options.skip_bad_rows:
                    remedy = "sort the file by time, or pass --skip-bad-rows to have it sorted"
                    self.bad(line, BadCell(time_column, "earlier than the row before it", remedy))
                self.count("rows out of order, sorted")
        self._last = due
        self._first = due if self._first is None else min(self._first, due)
        for name in row.keys() - self._columns.keys():
            self._columns[name] = [None] * len(self)
        for name, values in self._columns.items():
            values.append(row.get(name))
        self._keys.append(len(self._keys) if key is None else key)

    @contextmanager
    def checked(self, line: int | None = None, *, where: str = "", item: str = "") -> Iterator[None]:
        """A row (or an `item` of a document) is refused, or counted, where its cells can't be used."""
        try:
            yield
        except BadCell as error:
            self.bad(line, error, where, item)

    def bad(self, line: int | None, error: BadCell, where: str = "", item: str = "") -> None:
        """Refuse a row that can't be used, or count it."""
        message, column = f"{item}: {error.message}" if item else error.message, error.column
        if not self.options.skip_bad_rows:
            remedy = error.remedy or "correct it, or pass --skip-bad-rows"
            raise InputError(message, where=where or self.where, line=line, column=column or None, remedy=remedy)
        self._bad[f"{column}: {message}" if len(self._bad) < SHOWN_REASONS else "other reasons"] += 1

    def count(self, note: str) -> None:
        """A row left out, or changed, by the format's own rules."""
        self.notes[note] = self.notes.get(note, 0) + 1

    def trace(self, name: str, block_tokens: int | Mapping[int, int] = 0) -> Trace:
        if not self._keys:
            raise InputError("holds no usable request", where=self.where, remedy="is it the right file?")
        if self._bad:
            self.notes["skipped rows"] = sum(self._bad.values())
            self.notes["skipped because"] = dict(self._bad)
        columns: Columns = self._columns
        if not self._sorted:
            order = np.argsort(np.array(columns["due"], np.int64), kind="stable").tolist()
            columns = {column: [values[i] for i in order] for column, values in columns.items()}
            self._keys = [self._keys[i] for i in order]
        for column, default in (("turn", 0), ("think", 0), ("service", 0), ("prefix", ())):
            if column in columns:
                columns[column] = [value or default for value in columns[column]]
        columns["due"] = np.array(columns["due"], np.int64) - self._first_due()
        columns = linked(columns, self._keys, self.where)
        trace = build(columns, name=name, block_tokens=block_tokens, source=self.where, notes=self.notes)
        return within(trace, self.options)

    def _first_due(self) -> int:
        return beginning(self._first or 0, self.relative)


def beginning(first: int, relative: bool) -> int:
    """What is taken off all instants of a trace whose earliest is `first`."""
    return 0 if relative and 0 <= first < YEAR else first


def linked(columns: Columns, keys: Sequence[Hashable], where: str) -> Columns:
    """Columns whose parents (among `keys`, the rows' names) and sessions (any keys) have become numbers."""
    if "index" in columns and (None in columns["index"] or len(set(columns["index"])) < len(keys)):
        raise InputError("an index is missing or there twice", where=where, column="index", remedy="leave it out")
    service = columns.pop("service", None)
    if "session" in columns:
        columns["session"] = numbered(columns["session"])
    if "parent" in columns:
        at = {key: position for position, key in enumerate(keys)}
        link(columns, [at.get(key, -1) for key in columns["parent"]], service)
    elif "session" in columns:
        link(columns, predecessors(columns["session"]), service)
    return columns


def link(columns: Columns, parents: list[int], service: list[int] | None) -> None:
    """Parents (positions) into `columns`, with what follows from them where the format doesn't give it: session, turn,
    and think time: the gap between the instants, less the time that the answer took where that is known."""
    due, parent = columns["due"], np.array(parents, np.int64)
    parent[parent >= np.arange(len(parent))] = -1  # nobody waits for a later one
    names = np.array(columns.get("index", range(len(due))), np.int64)
    columns["parent"] = np.where(parent >= 0, names[parent], -1)
    if "think" not in columns:
        answered = np.array(service, np.int64)[parent] if service else 0
        columns["think"] = np.where(parent >= 0, np.maximum(0, due - due[parent] - answered), 0)
    if "session" not in columns:
        columns["session"] = chain_starts(parent)
    if "turn" not in columns:
        columns["turn"] = depth = [0] * len(parent)
        for row in np.flatnonzero(parent >= 0).tolist():
            depth[row] = depth[parent[row]] + 1


def predecessors(sessions: list[int]) -> list[int]:
    """For each row the position of the row before it in its session, -1 for none."""
    last: dict[int, int] = {}
    before = []
    for position, session in enumerate(sessions):
        before.append(last.get(session, -1) if session >= 0 else -1)
        last[session] = position
    return before


def numbered(keys: list[Hashable]) -> list[int]:
    """Session keys as numbers: as they are if they all are small ones, else by first appearance. None is no session."""
    if all(key is None or (isinstance(key, int) and -1 <= key <= LONGEST) for key in keys):
        return [-1 if key is None else cast(int, key) for key in keys]
    seen: dict[Hashable, int] = {}
    return [-1 if key is None or key == -1 else seen.setdefault(key, len(seen)) for key in keys]


def within(trace: Trace, options: ReadOptions) -> Trace:
    """The part that `until` asks for."""
    if options.until_ns is None:
        return trace
    return trace[: int(np.searchsorted(trace.column("due"), options.until_ns, side="right"))]


def spread(trace: Trace, seed: int) -> Trace:
    """A trace whose timestamps sit on coarse ticks, as Mooncake's do, spread evenly inside them (docs/traces.md: why);
    any other as it is. The order stays."""
    due = trace.column("due")
    ticks, where, rows = np.unique(due, return_inverse=True, return_counts=True)
    if len(ticks) < 2 or rows.mean() < CROWDED:
        return trace
    steps = np.diff(ticks)
    tick = int(np.median(steps))
    if tick < COARSE:
        return trace
    width = np.minimum(np.append(steps, tick), tick)  # the log's ticks are a few ms off: never reach into the next
    drawn = np.random.default_rng(seed).random(len(due))
    order = np.lexsort((drawn, due))  # draws ascend inside a tick
    moved = due + (drawn[order] * width[where]).astype(np.int64)
    notes = {**trace.notes, "spread inside ticks of (s)": tick / NS_PER_S}
    return replace(trace.with_columns(due=moved), notes=notes)


def timed(trace: Trace, options: ReadOptions) -> Trace:
    """A trace of a format without instants, as Poisson arrivals."""
    notes = {**trace.notes, "no arrival times": f"Poisson at {ASSUMED_RATE:g}/s, seed {options.seed}"}
    return replace(within(pace(trace, ASSUMED_RATE, seed=options.seed), options), notes=notes)
