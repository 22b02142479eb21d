"""`open_trace`: the trace that a user names, as every command understands it."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .read import read
from .synth import WORKLOADS, synthesise
from .trace import Trace
from .transforms import LATEST, SECOND


def open_trace(
    name: str, *, until: float | None = None, skip_bad_rows: bool = False, keep_ticks: bool = False, seed: int = 0
) -> Trace:
    """A file or folder, standard input (`-`), or a bundled workload; a file wins over a workload of its name.

    until   seconds from the trace's start; without it a workload is as long as it says itself
    Raises InputError, as `read` and `synthesise` do.
    """
    if until is not None and not 1 <= until * SECOND <= LATEST:  # NaN neither
        raise InputError(f"can't be read until {until:g} s", where=name, remedy="expected seconds above 0")
    if name == "-" or Path(name).exists():
        end = None if until is None else round(until * SECOND)
        return read(name, skip_bad_rows=skip_bad_rows, keep_ticks=keep_ticks, seed=seed, until=end)
    if name in WORKLOADS:
        return synthesise(name, duration=until, seed=seed)
    raise InputError("no such file, and no bundled workload", where=name, remedy=f"bundled: {', '.join(WORKLOADS)}")
