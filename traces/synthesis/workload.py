"""`synthesise`: a trace drawn from a workload's parameters. A workload is a small JSON file (see docs/traces.md):

    {"about": ..., "duration": s, "arrivals": {...}, "prompt": {...}, "output": {...}, "copula": rho, "sessions": {...}}

`arrivals`, `lengths` and `sessions`, beside this file, say what the parts may hold. The same workload, seed and rate
give the same trace on every machine; another rate keeps each request's lengths and changes only the instants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..trace import Trace, build
from . import lengths
from .arrivals import arrivals
from .lengths import Whole
from .sessions import continued, grown, lead

FOLDER = Path(__file__).parent.parent / "workloads"
WORKLOADS = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
LARGEST = 50_000_000  # requests; more is a slip of the keyboard


def synthesise(name_or_file: str, *, rate: float | None = None, duration: float | None = None, seed: int = 0) -> Trace:
    """A trace of a bundled workload (`WORKLOADS`) or of a workload file; rate in requests/s, duration in s."""
    return draw(load(name_or_file), rate=rate, duration=duration, seed=seed, source=name_or_file)


def draw(
    workload: Mapping[str, Any],
    *,
    rate: float | None = None,
    duration: float | None = None,
    seed: int = 0,
    source: str = "workload",
) -> Trace:
    """The same from a workload that has been loaded."""
    try:
        return _drawn(workload, rate, duration, seed, source)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"not a workload: {error!r}", where=source, remedy="see docs/traces.md") from None


def load(name_or_file: str) -> dict[str, Any]:
    path = FOLDER / f"{name_or_file}.json" if name_or_file in WORKLOADS else Path(name_or_file)
    try:
        workload = json.loads(path.read_text())
    except OSError:
        raise InputError(
            "no such workload", where=name_or_file, remedy=f"a file or one of {', '.join(WORKLOADS)}"
        ) from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=name_or_file, remedy="expected a workload file") from None
    if not isinstance(workload, dict) or not {"prompt", "output"} <= workload.keys():
        raise InputError("not a workload", where=name_or_file, remedy="expected prompt, output and arrivals")
    return workload


def _drawn(workload: Mapping[str, Any], rate: float | None, duration: float | None, seed: int, source: str) -> Trace:
    process = workload.get("arrivals", {})
    rate = float(process.get("rate", 1.0)) if rate is None else rate
    duration = float(workload.get("duration", 3600)) if duration is None else duration
    if not (rate > 0 and duration > 0 and rate * duration <= LARGEST):
        raise InputError(f"expected a rate and a duration above 0, got {rate}/s for {duration} s", where=source)
    sessions = workload.get("sessions", {})
    rng = np.random.default_rng((seed, 0))
    if "turns" in sessions:
        before = lead(sessions, workload)
        instants = arrivals(process, rate / float(sessions["mean_turns"]), before + duration, rng) - before
    else:
        instants = arrivals(process, rate, duration, rng)
    due = np.rint(instants * 1e9).astype(np.int64)
    columns, block_tokens = _requests(workload, due, int(duration * 1e9), seed)
    if not len(columns["due"]):
        raise InputError(f"no request falls into {duration:g} s at {rate:g}/s", where=source, remedy="raise either")
    notes = {"synthetic": {"workload": source, "rate": rate, "duration": duration, "seed": seed}}
    return build(columns, name=Path(source).stem, block_tokens=block_tokens, source=source, notes=notes)


def _requests(workload: Mapping[str, Any], due: Whole, end: int, seed: int) -> tuple[dict[str, Any], int]:
    """(columns, tokens of a block) for requests, or sessions, that start at `due`."""
    spec = workload.get("sessions")
    rng = np.random.default_rng((seed, 4))
    if spec and "turns" in spec:
        return grown(spec, workload, due, end, rng), int(spec["block_tokens"])
    first, second = lengths.pairs(len(due), float(workload.get("copula") or 0.0), (seed,))
    prompt, output = lengths.quantile(workload["prompt"], first, 1), lengths.quantile(workload["output"], second, 1)
    columns = {"due": due, "prompt_tokens": prompt, "output_tokens": output}
    if not spec:
        return columns, 0
    return {**columns, **continued(spec, due, prompt, output, rng)}, int(spec["block_tokens"])
