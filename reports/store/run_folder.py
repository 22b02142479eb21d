"""A run read back from its folder: the facts of run.json beside the rows, grouped by target and load step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from traces.errors import InputError

from ..analysis import durations
from ..analysis.quantiles import Values

Key = tuple[str, str]  # target, step


@dataclass
class Run:
    """`rows` is `metrics.joined`'s, warm-up included; `gaps` holds the counted, answered requests' ITL, sorted, in s
    (float32: exact to 0.1 us, and a long run has hundreds of millions)."""

    folder: Path
    facts: dict[str, Any]
    rows: pd.DataFrame
    gaps: dict[Key, Values] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()  # names of row files that couldn't be read

    @property
    def lacking(self) -> int:
        """Exchanges that run.json tells of and no row file holds: what workers recorded, and, of a completed run, what
        was planned and sent."""
        told = sum(int(worker.get("rows") or 0) for worker in self.facts.get("workers", []))
        lost = told - len(self.rows)
        if self.facts.get("ended") == "completed":
            phases = self.facts.get("phases", [])
            planned, unsent = (
                sum(sum((phase.get(name) or {}).values()) for phase in phases) for name in ("planned", "unsent")
            )
            known = sum((self.facts.get("missing") or {}).values())
            sent = planned - unsent - known
            lost = max(lost, sent - len(self.rows.drop_duplicates(["target", "step", "index"])))
        return max(0, lost)

    @property
    def name(self) -> str:
        return str(self.facts.get("name") or self.folder.name)

    def groups(self) -> Iterator[tuple[Key, pd.DataFrame]]:
        """Rows of each target in each step: targets in run.json's order, steps in the order of their first arrival."""
        order = [str(target.get("name")) for target in self.facts.get("targets", [])]
        first = self.rows.groupby(["target", "step"], observed=True)["due"].min()
        steps = list(dict.fromkeys(first.sort_values(kind="stable").index.get_level_values("step")))
        keys = sorted(first.index, key=lambda key: (_place(order, key[0]), key[0], steps.index(key[1])))
        parts = dict(tuple(self.rows.groupby(["target", "step"], observed=True)))
        for key in keys:
            yield (str(key[0]), str(key[1])), parts[key]

    def phase(self, key: Key) -> Mapping[str, Any]:
        """run.json's phase of this target and step; empty where it has none."""
        target, step = key
        phases = [phase for phase in self.facts.get("phases", []) if phase.get("name") == step]
        of_target = [phase for phase in phases if target in (phase.get("planned") or {target: 0})]
        return next(iter(of_target or phases), {})

    def window(self, key: Key, rows: pd.DataFrame) -> tuple[float, float]:
        """The window in ns from the run's start; of the counted rows' own dues where run.json says nothing."""
        window = self.phase(key).get("window")
        if window and window[1] is not None and window[1] > window[0]:
            return float(window[0]), float(window[1])
        due = rows.loc[rows["counted"], "due"]
        return (float(due.min()), float(due.max())) if len(due) else (0.0, 0.0)


def _place(order: list[str], target: str) -> int:
    return order.index(target) if target in order else len(order)


def load(folder: Path | str) -> Run:
    """Reads a run folder. InputError where it holds no readable rows, or run.json is not JSON."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such run", where=str(folder), remedy="give a folder under runs/")
    frames: list[pd.DataFrame] = []
    gaps: dict[Key, list[Values]] = {}
    damaged: dict[str, InputError] = {}
    for part, table in durations.frames(folder, damaged):
        frames.append(part)
        _add_gaps(gaps, part, *durations.itl(table))
    if not frames:
        raise next(iter(damaged.values()))
    rows = durations.joined(frames)
    frames.clear()
    whole = {key: _sorted(gaps.pop(key)) for key in list(gaps)}
    return Run(folder, facts(folder), rows, whole, tuple(damaged))


def _sorted(parts: list[Values]) -> Values:
    whole = np.concatenate(parts)
    whole.sort()  # in place: a long run has hundreds of millions of gaps
    return whole


def facts(folder: Path) -> dict[str, Any]:
    """run.json; empty where there is none."""
    path = folder / "run.json"
    if not path.exists():
        return {}
    try:
        found = orjson.loads(path.read_bytes())
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where=str(path)) from None
    if not isinstance(found, dict):
        raise InputError("expected an object", where=str(path))
    return found


def _add_gaps(gaps: dict[Key, list[Values]], part: pd.DataFrame, values: Values, owner: Values) -> None:
    good = (part["ok"] & part["counted"]).to_numpy()
    numbers = part.groupby(["target", "step"], observed=True).ngroup().to_numpy()
    for key, rows in part.groupby(["target", "step"], observed=True):
        chosen = good & (numbers == numbers[rows.index[0]])
        gaps.setdefault((str(key[0]), str(key[1])), []).append(values[chosen[owner]].astype(np.float32))
