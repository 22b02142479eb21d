"""Where runs lie on disk: a run's folder is made when the run is planned, and never overwrites another one."""

from __future__ import annotations

import time
from pathlib import Path

from traces.errors import InputError


def name_of(trace: str) -> str:
    """A short name for runs of the trace of this name."""
    return "stdin" if trace == "-" else Path(trace).name.partition(".")[0] or "trace"


def new_folder(name: str, out: str | Path | None = None) -> Path:
    """A run's folder, made now: `out`, or runs/<name>-<time>. InputError where it holds something or can't be made."""
    if out is None:
        return numbered(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "holds something already", where=str(folder), remedy="runs are never overwritten: name another"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unwritable(folder, problem) from None
    return folder


def numbered(path: Path) -> Path:
    """The folder, made now; -2, -3, ... is added to a name that is taken."""
    for number in range(1, 10_000):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as problem:
            raise _unwritable(candidate, problem) from None
        return candidate
    raise InputError("no free name for a run", where=str(path))


def _unwritable(folder: Path, problem: OSError) -> InputError:
    return InputError(f"can't be made: {problem.strerror}", where=str(folder), remedy="name another folder with --out")
