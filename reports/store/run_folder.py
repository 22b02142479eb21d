"""A run read back from its folder: the facts of run.json beside the rows, grouped by target and load step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from traces.errors import InputError

from . import durations, row_files, run_json
from .durations import Array
from .run_json import RunFacts, StepFacts

Key = tuple[str, str]  # target, step


@dataclass
class Run:
    """A run on disk. `rows` is `durations.joined`'s, warm-up included; `gaps` holds the counted, answered requests'
    ITL, sorted, in s (float32: exact to 0.1 us, and a long run has hundreds of millions)."""

    folder: Path
    facts: RunFacts
    rows: pd.DataFrame
    gaps: dict[Key, Array] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()  # names of row files that couldn't be read

    @property
    def lacking(self) -> int:
        """Exchanges that run.json counts and no row file holds: what workers recorded, and, of a completed run, what
        was planned and sent."""
        lost = sum(worker.rows for worker in self.facts.workers) - len(self.rows)
        if self.facts.ended == "completed":
            planned = sum(sum(step.planned.values()) for step in self.facts.steps)
            unsent = sum(sum(step.unsent.values()) for step in self.facts.steps)
            sent = planned - unsent - sum(self.facts.missing.values())
            lost = max(lost, sent - len(self.rows.drop_duplicates(["target", "step", "index"])))
        return max(0, lost)

    @property
    def name(self) -> str:
        """As run.json has it; the folder's name where there is none."""
        return self.facts.name

    def exchanges(self) -> pa.Table:
        """All rows as they were recorded, columns as docs/contracts.md lists them. Raises InputError where a file can't
        be read."""
        return row_files.read(self.folder)

    def groups(self) -> Iterator[tuple[Key, pd.DataFrame]]:
        """Rows of each target in each step: targets in run.json's order, steps in the order of their first arrival."""
        order = {target.name: place for place, target in enumerate(self.facts.targets)}
        first = self.rows.groupby(["target", "step"], observed=True)["due"].min()
        steps = list(dict.fromkeys(first.sort_values(kind="stable").index.get_level_values("step")))
        keys = sorted(first.index, key=lambda key: (order.get(key[0], len(order)), key[0], steps.index(key[1])))
        parts = dict(tuple(self.rows.groupby(["target", "step"], observed=True)))
        for key in keys:
            yield (str(key[0]), str(key[1])), parts[key]

    def step(self, key: Key) -> StepFacts | None:
        """run.json's step of this name that was planned for this target; None where it has none."""
        target, name = key
        steps = (step for step in self.facts.steps if step.name == name)
        return max(steps, key=lambda step: target in step.planned, default=None)

    def window(self, key: Key, rows: pd.DataFrame) -> tuple[float, float]:
        """The window in ns from the run's start; of the counted rows' own dues where run.json has none."""
        step = self.step(key)
        if step is not None and step.window[1] is not None and step.window[1] > step.window[0]:
            return float(step.window[0]), float(step.window[1])
        due = rows.loc[rows["counted"], "due"]
        return (float(due.min()), float(due.max())) if len(due) else (0.0, 0.0)


def open_run(folder: Path | str) -> Run:
    """Reads a run folder. Raises InputError where it holds no readable rows, or a run.json with a mistake (file and
    field); without a run.json the rows still speak."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such run", where=str(folder), remedy="give a folder under runs/")
    frames: list[pd.DataFrame] = []
    gaps: dict[Key, list[Array]] = {}
    damaged: dict[str, InputError] = {}
    facts = run_json.read(folder) if (folder / run_json.FILE).exists() else run_json.unknown(folder.name)
    planned = {(target, step.name) for step in facts.steps for target in step.planned}
    for part, table in durations.frames(folder, damaged, planned):
        _uncount(part, facts.steps)
        frames.append(part)
        _add_gaps(gaps, part, *durations.itl(table))
    if not frames:
        raise next(iter(damaged.values()))
    rows = durations.joined(frames)
    frames.clear()
    gaps_of = {key: np.concatenate(gaps.pop(key)) for key in list(gaps)}
    for values in gaps_of.values():
        values.sort()  # in place: a long run has hundreds of millions of gaps
    return Run(folder, facts, rows, gaps_of, tuple(damaged))


def _uncount(part: pd.DataFrame, steps: Sequence[StepFacts]) -> None:
    """Where the warm-up was found after the run, its rows were recorded as counted."""
    for step in steps:
        if step.warmup == "found":
            of_step = (part["step"] == step.name) & part["target"].isin(list(step.planned))
            part.loc[of_step & (part["due"] < step.window[0]), "counted"] = False


def _add_gaps(gaps: dict[Key, list[Array]], part: pd.DataFrame, values: Array, owner: Array) -> None:
    for key, rows in part[part["ok"] & part["counted"]].groupby(["target", "step"], observed=True):
        chosen = np.zeros(len(part), np.bool_)
        chosen[rows.index] = True
        gaps.setdefault((str(key[0]), str(key[1])), []).append(values[chosen[owner]].astype(np.float32))
