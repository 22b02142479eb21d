"""A run read back from its folder: the facts of run.json beside the rows, grouped by target and load step.

A folder of rounds holds `round-1/`, `round-2/` and so on, each a run of its own under the same load, and reads as one
run. Its time axis begins with the first round; each later round lies where its clock says, after the one before
(rounds in virtual time all begin at 0). A request is known by its round and index. A round that didn't end well is
lost: it is named with its reason, and its rows are left out, unless no round ended well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa

from traces.errors import InputError

from . import durations, rounds_json, row_files, run_json
from .bundle import unpacked
from .durations import Array
from .rounds_json import RoundsFacts
from .run_json import RunFacts, StepFacts

Key = tuple[str, str]  # target, step

_BADLY = {"worker_lost": "a worker was lost", "running": "it never ended", "interrupted": "it was interrupted"}


@dataclass
class Run:
    """A run on disk. `rows` is `durations.joined`'s, warm-up included; `gaps` holds the counted, answered requests'
    ITL, sorted, in s (float32: exact to 0.1 us, and a long run has hundreds of millions). `rounds`: of a folder of
    rounds those that count, on the run's time axis; `lost`: round -> why it doesn't."""

    folder: Path
    facts: RunFacts
    rows: pd.DataFrame
    gaps: dict[Key, Array] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()  # names of row files that couldn't be read
    round: int = 1
    rounds: tuple[Run, ...] = ()
    lost: dict[int, str] = field(default_factory=dict)
    series: RoundsFacts | None = None  # rounds.json, where there is one
    bundle: Path | None = None  # the file that it was in; `folder` is then gone when the run is
    files: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def place(self) -> Path:
        """Where the user has it: its folder, or its bundle."""
        return self.bundle or self.folder

    @property
    def parts(self) -> tuple[Run, ...]:
        """The rounds that count; of a plain run itself alone."""
        return self.rounds or (self,)

    @property
    def lacking(self) -> int:
        """Exchanges that run.json counts and no row file holds: what workers recorded, and, of a completed run, what
        was planned and sent."""
        if self.rounds:
            return sum(part.lacking for part in self.rounds)
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
        """All rows as they were recorded, columns as docs/contracts.md lists them; of a folder of rounds with a column
        `round`, instants from each round's start. Raises InputError where a file can't be read."""
        if not self.rounds:
            return row_files.read(self.folder)
        tables = [(part.round, row_files.read(part.folder)) for part in self.rounds]
        return pa.concat_tables([
            table.append_column("round", pa.array([number] * len(table), pa.int64())) for number, table in tables
        ])  # fmt: skip

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
    """Reads a run folder, a folder of rounds, or the bundle of either. Raises InputError where it holds no readable
    rows, or a run.json with a mistake (file and field); without a run.json the rows still speak."""
    folder = Path(folder)
    if folder.is_file():
        files = unpacked(folder)
        try:
            return replace(open_run(files.name), bundle=folder, files=files)
        except InputError as problem:
            problem.where = problem.where.replace(files.name, str(folder))
            raise
    if not folder.is_dir():
        raise InputError("no such run", where=str(folder), remedy="give a folder under runs/")
    rounds = rounds_json.round_folders(folder)
    return _of_rounds(folder, rounds) if rounds else _of_one(folder)


def _of_one(folder: Path) -> Run:
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


def _of_rounds(folder: Path, folders: dict[int, Path]) -> Run:
    """The rounds as one run. InputError where none can be read, and for a mistake in rounds.json."""
    series = rounds_json.read(folder) if rounds_json.is_series(folder) else None
    known = {each.number: each.lost for each in series.rounds if each.lost} if series else {}
    runs: list[Run] = []
    begun = [each.number for each in series.rounds] if series else []
    lost = {number: "its folder is missing" for number in begun if number not in folders}
    for number, path in folders.items():
        try:
            runs.append(replace(_of_one(path), round=number))
        except InputError as problem:
            lost[number] = str(problem)
    unfit = {run.round: why for run in runs if (why := known.get(run.round) or _unfit(run))}
    good = [run for run in runs if run.round not in unfit]
    if not good:  # what was recorded still speaks, as a run's does that ended badly
        good, unfit = runs, {}
    if not good:
        reasons = "; ".join(f"round {number}: {why}" for number, why in lost.items())
        raise InputError(f"no round can be read: {reasons}", where=str(folder))
    run = merged(folder, series.name if series else folder.name, good)
    gone = {number: why for number, why in (lost | unfit | known).items() if number not in {r.round for r in good}}
    return replace(run, lost=dict(sorted(gone.items())), series=series)


def _unfit(run: Run) -> str:
    """Why a round doesn't count; empty where it does."""
    facts = run.facts
    gone = ", ".join(f"worker {worker.number} lost: {worker.lost}" for worker in facts.workers if worker.lost)
    if gone or facts.ended != "completed":
        return gone or _BADLY[facts.ended]
    missing = run.lacking + sum(facts.missing.values())
    if run.damaged or missing:
        return f"row files can't be read: {', '.join(run.damaged)}" if run.damaged else f"{missing:,} rows are missing"
    return ""


def merged(folder: Path, name: str, runs: Sequence[Run]) -> Run:
    """The runs as the rounds of one. Their rows are moved to its time axis."""
    origin, end = _origin(runs[0]), 0
    for run in runs:
        start = max(end, _origin(run) - origin)
        for column in durations.INSTANTS:
            run.rows[column] += start
        run.rows["round"] = run.round
        run.facts = replace(run.facts, steps=tuple(_moved(step, start) for step in run.facts.steps))
        last = [run.rows[column].max() for column in ("due", "done")] if len(run.rows) else []
        end = 1 + int(max(start, *last, *(step.end or 0 for step in run.facts.steps)))
    ends = np.cumsum([len(run.rows) for run in runs])
    rows = durations.concatenated([run.rows for run in runs])
    for run, last in zip(runs, ends, strict=True):
        run.rows = rows.iloc[last - len(run.rows) : last]  # a view: a long run is not in memory twice
    gaps = {key: np.concatenate([run.gaps[key] for run in runs if key in run.gaps]) for run in runs for key in run.gaps}
    for values in gaps.values():
        values.sort()
    damaged = tuple(f"{run.folder.name}/{name}" for run in runs for name in run.damaged)
    return Run(folder, _facts(name, runs), rows, gaps, damaged, rounds=tuple(runs))


def _origin(run: Run) -> int:
    """The round's start in ns since the epoch; 0 where it isn't known."""
    return run.facts.clock.origin_ns if run.facts.clock else 0


def _moved(step: StepFacts, by: int) -> StepFacts:
    begin, end = step.window
    window = (begin + by, None if end is None else end + by)
    return replace(step, start=step.start + by, window=window, end=None if step.end is None else step.end + by)


def _facts(name: str, runs: Sequence[Run]) -> RunFacts:
    """The first round's, with the steps, workers and losses of all."""
    every = [run.facts for run in runs]
    first = next((facts for facts in every if facts.created), every[0])
    names = dict.fromkeys(step.name for facts in every for step in facts.steps)
    targets = {target.name: target for facts in reversed(every) for target in facts.targets}
    return replace(
        first, name=name, ended=next((facts.ended for facts in every if facts.ended != "completed"), "completed"),
        steps=tuple(_step([step for facts in every for step in facts.steps if step.name == each]) for each in names),
        targets=tuple(sorted(targets.values(), key=lambda target: target not in first.targets)),
        workers=tuple(worker for facts in every for worker in facts.workers),
        missing=_sum(facts.missing for facts in every), strays=sum(facts.strays for facts in every),
        certificate_exceeded=next(filter(None, (facts.certificate_exceeded for facts in every)), ""),
        missing_requests=tuple(index for facts in every for index in facts.missing_requests),
    )  # fmt: skip


def _step(steps: Sequence[StepFacts]) -> StepFacts:
    """One load step over all rounds: from its first window's begin to its last one's end, requests summed."""
    last = steps[-1]
    return replace(
        steps[0], window=(steps[0].window[0], last.window[1]), end=last.end,
        planned=_sum(step.planned for step in steps), unsent=_sum(step.unsent for step in steps),
    )  # fmt: skip


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _add_gaps(gaps: dict[Key, list[Array]], part: pd.DataFrame, values: Array, owner: Array) -> None:
    for key, rows in part[part["ok"] & part["counted"]].groupby(["target", "step"], observed=True):
        chosen = np.zeros(len(part), np.bool_)
        chosen[rows.index] = True
        gaps.setdefault((str(key[0]), str(key[1])), []).append(values[chosen[owner]].astype(np.float32))
