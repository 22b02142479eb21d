"""rounds.json: a series of rounds, each an ordinary run in `round-1/`, `round-2/`, ... beside it. `write` is its only
writer, `read` its only reader. What a round sent, and how it ended, is in the run.json of its own folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from traces.errors import InputError
from traces.files import regular, write_whole
from traces.typed_json import LEFT_OUT, from_json, to_json

from . import row_files, run_json

FILE = "rounds.json"

_ROUND = re.compile(r"round-([1-9][0-9]{0,5})")

# "interrupted": by hand; "decided": every gate was, before all planned rounds had run.
Ended = Literal["running", "completed", "interrupted", "decided"]


@dataclass(frozen=True)
class RoundFacts:
    """One round that was begun, the first has number 1. `seed`: of its draws; `order`: of each step, by name, the
    targets in the order in which each was sent its requests alone ({} where they ran side by side); `lost`: why the
    round doesn't count ("": it does, as far as its own run.json and rows go)."""

    number: int
    seed: int
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundsFacts:
    """A series: `planned` rounds, of which `rounds` were begun. `created` is ISO 8601; `order` says how the targets of
    a step ran: side by side ("parallel"), each alone as the user named them ("sequential") or in balanced random order
    ("random"), and `why` that was chosen; `factors` are the multiples of the base load, a step each; `loads` says
    whether they leave out and add sessions ("sessions") or compress time ("speedup"); `stop_early`: the series ends
    when every gate is decided."""

    name: str
    created: str
    version: str
    seed: int
    planned: int
    order: str
    why: str = ""
    factors: tuple[float, ...]
    loads: Literal["sessions", "speedup"] = "sessions"
    stop_early: bool = False
    simulated: bool = field(default=False, metadata=LEFT_OUT)  # in virtual time
    rounds: tuple[RoundFacts, ...] = ()
    ended: Ended = "running"


def round_folder(folder: Path, number: int) -> Path:
    return folder / f"round-{number}"


def round_folders(folder: Path) -> dict[int, Path]:
    """Round -> its folder, in their order; {} for what is no folder of rounds."""
    if (folder / row_files.FOLDER).exists() or (folder / run_json.FILE).exists():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := _ROUND.fullmatch(path.name))}
    return dict(sorted(found.items()))


def is_series(folder: Path) -> bool:
    return (folder / FILE).exists()


def write(folder: Path, facts: RoundsFacts) -> None:
    """Writes rounds.json; whoever reads it meanwhile has the facts before, or these."""
    write_whole(folder / FILE, to_json(facts))


def read(folder: Path) -> RoundsFacts:
    """Raises InputError with file and field."""
    path = folder / FILE
    try:
        raw = regular(path).read_bytes()
    except OSError as problem:
        raise InputError(f"can't be read: {problem.strerror}", where=str(path)) from None
    return from_json(RoundsFacts, raw, str(path))
