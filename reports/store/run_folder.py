"""A run read back from its folder: the facts of run.json beside the rows, grouped by target and load step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from targets.exchange import NANO
from traces.errors import InputError

from ..analysis import durations
from ..analysis.gates import OBJECTIVES
from ..analysis.quantiles import Values
from . import row_files, run_json
from .run_json import RunFacts, StepFacts

Key = tuple[str, str]  # target, step


@dataclass
class Run:
    """A run on disk. `rows` is `durations.joined`'s, warm-up included; `gaps` holds the counted, answered requests'
    ITL, sorted, in s (float32: exact to 0.1 us, and a long run has hundreds of millions)."""

    folder: Path
    facts: RunFacts
    rows: pd.DataFrame
    gaps: dict[Key, Values] = field(default_factory=dict)
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
        return self.facts.name

    def exchanges(self) -> pa.Table:
        """All rows as they were recorded, columns as docs/contracts.md lists them. Raises InputError where a file can't
        be read."""
        return row_files.read(self.folder)

    def groups(self) -> Iterator[tuple[Key, pd.DataFrame]]:
        """Rows of each target in each step: targets in run.json's order, steps in the order of their first arrival."""
        order = [target.name for target in self.facts.targets]
        first = self.rows.groupby(["target", "step"], observed=True)["due"].min()
        steps = list(dict.fromkeys(first.sort_values(kind="stable").index.get_level_values("step")))
        keys = sorted(first.index, key=lambda key: (_place(order, key[0]), key[0], steps.index(key[1])))
        parts = dict(tuple(self.rows.groupby(["target", "step"], observed=True)))
        for key in keys:
            yield (str(key[0]), str(key[1])), parts[key]

    def step(self, key: Key) -> StepFacts | None:
        """run.json's step of this name that was planned for this target; None where it has none."""
        target, name = key
        steps = [step for step in self.facts.steps if step.name == name]
        return next((step for step in steps if target in step.planned), steps[0] if steps else None)

    def window(self, key: Key, rows: pd.DataFrame) -> tuple[float, float]:
        """The window in ns from the run's start; of the counted rows' own dues where run.json has none."""
        step = self.step(key)
        if step is not None and step.window[1] is not None and step.window[1] > step.window[0]:
            return float(step.window[0]), float(step.window[1])
        due = rows.loc[rows["counted"], "due"]
        return (float(due.min()), float(due.max())) if len(due) else (0.0, 0.0)


def _place(order: list[str], target: str) -> int:
    return order.index(target) if target in order else len(order)


def open_run(folder: Path | str) -> Run:
    """Reads a run folder. Raises InputError where it holds no readable rows, or a run.json with a mistake (file and
    field); without a run.json the rows still speak."""
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
    gaps_of = {key: _sorted(gaps.pop(key)) for key in list(gaps)}
    facts = run_json.read(folder) if (folder / run_json.FILE).exists() else run_json.unknown(folder.name)
    return Run(folder, facts, rows, gaps_of, tuple(damaged))


def _sorted(parts: list[Values]) -> Values:
    whole = np.concatenate(parts)
    whole.sort()  # in place: a long run has hundreds of millions of gaps
    return whole


def _add_gaps(gaps: dict[Key, list[Values]], part: pd.DataFrame, values: Values, owner: Values) -> None:
    good = (part["ok"] & part["counted"]).to_numpy()
    numbers = part.groupby(["target", "step"], observed=True).ngroup().to_numpy()
    for key, rows in part.groupby(["target", "step"], observed=True):
        chosen = good & (numbers == numbers[rows.index[0]])
        gaps.setdefault((str(key[0]), str(key[1])), []).append(values[chosen[owner]].astype(np.float32))


def samples(run: Run, goodput: Mapping[str, float]) -> dict[Key, dict[str, Any]]:
    """What gates ask: see `gates.decide`."""
    return {key: sample(run, key, rows, goodput) for key, rows in run.groups()}


def sample(run: Run, key: Key, rows: pd.DataFrame, goodput: Mapping[str, float]) -> dict[str, Any]:
    counted = rows[rows["counted"]]
    answered = counted[counted["ok"]]
    window = run.window(key, rows)
    seconds = (window[1] - window[0]) * NANO
    return {
        "counted": len(counted),
        "failed": len(counted) - len(answered),
        "window": seconds,
        "values": values(run, key, counted, answered),
        "good": int(meets(answered, goodput).sum()) if goodput else None,
        **rates(rows, window),
    }


def values(run: Run, key: Key, counted: pd.DataFrame, answered: pd.DataFrame) -> dict[str, Values]:
    """Sorted, finite seconds of each metric: of answered requests; the client's own of all counted ones."""
    found = {}
    for name in durations.DURATIONS:
        column = (counted if name in ("lateness", "client_lag") else answered)[name].to_numpy()
        found[name] = np.sort(column[np.isfinite(column)])
    found["itl"] = run.gaps.get(key, np.array([]))
    return found


def meets(answered: pd.DataFrame, goodput: Mapping[str, float]) -> pd.Series[bool]:
    """Which answered requests met every objective; an undefined figure (TPOT of one token) violates nothing, but who
    gets a whole answer and no stream waits for the first token until its end."""
    good = pd.Series(True, index=answered.index)
    for metric, limit in goodput.items():
        if metric in OBJECTIVES:
            times = answered[metric]
            if metric in ("ttft", "ttft_from_due"):
                times = times.fillna(answered["e2e"])
            good &= ~(times > limit)
    return good


def rates(rows: pd.DataFrame, window: tuple[float, float]) -> dict[str, float]:
    """Requests and tokens per second that really arrived inside the window, whenever their request was due: what is
    drained after the window must not count as throughput. A stream's tokens are spread evenly from first to last."""
    begin, end = window
    seconds = (end - begin) * NANO
    if seconds <= 0:
        return {"requests_per_s": 0.0, "tokens_per_s": 0.0}
    first, last = rows["first_token"].to_numpy(), rows["last_token"].to_numpy()
    inside = np.minimum(last, end) - np.maximum(first, begin)
    length = np.maximum(last - first, 1)
    share = np.clip(np.where(last > first, inside / length, (first >= begin) & (first < end)), 0, 1)
    done = rows["ok"] & (rows["done"] >= begin) & (rows["done"] < end)
    tokens = np.nansum(share * rows["output_count"].to_numpy())
    return {"requests_per_s": float(done.sum() / seconds), "tokens_per_s": float(tokens / seconds)}
