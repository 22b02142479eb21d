"""When did a run become steady? The warm-up found in the rows, not guessed. Pure.

Theory of operation. A run starts in a state that isn't the usual one: the endpoint is empty, its caches are cold, its
machines are still being fetched. Two signs show where that ends, each looked for from some instant on:

*Filling.* The requests in flight begin below every level of the recording's second half, and below half of its median;
the start is over when they first reach that median (the rule of crossing, Fishman 1973). A steady endpoint is seldom
below all its later levels, however long its queues remember: one level is compared with the levels themselves.

*Settling.* MSER-5 (White 1997; White, Cobb and Spratt 2000) on TTFT and on TPOT: means of five requests in the order of
arrival; the start is the head without which the standard error of the rest's mean is smallest,

    d = argmin over d of  sum over i > d of (z_i - mean of z after d)^2 / (n - d)^2

Values are replaced by their ranks, failures last, so that heavy tails and failures move nothing. The smallest standard
error of requests that share a queue is often found by chance (in 5 to 20 % of steady runs more than a tenth of the
window would go), so the head counts only where it differs from what follows as its blocks of the same length don't
differ among themselves: Student's t at 1 in 200. Blocks of the head's own length carry the queue's memory with them.

A start that takes more than a quarter of the recording can't be told from a drift: then there is no answer.
docs/metrics.md says how often the answer is right, and how often a steady window is called too early.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf, isnan, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from traces.errors import InputError
from traces.request import NS_PER_S

from ..store import run_json
from ..store.rounds_json import round_folders
from ..store.run_folder import Run, open_run
from ..store.run_json import StepFacts
from .quantiles import Values
from .samples import Sample
from .steadiness import backlog

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("ttft", "tpot")
BATCH = 5  # requests: the 5 of MSER-5
FEWEST = 60  # requests, below which nothing is said
LONGEST = 0.25  # of the recording, that a start may take: what follows has three blocks of its length or more
LEVELS = 400  # instants at which the requests in flight are counted
# Student's t, two-sided 0.5 %, by degrees of freedom from 2 on; the last for all further ones.
T = (14.089, 7.453, 5.598, 4.773, 4.317, 4.029, 3.833, 3.690, 3.581, 3.497, 3.428, 3.372, 3.326, 3.286, 3.252)


@dataclass(frozen=True, slots=True)
class Start:
    """When one target became steady in one step. `steady_s`: seconds from the step's start, 0 where nothing shows a
    start; nan where there is no answer: the sample is too small (no `sign`), or there is no steady part. `late_s`: how
    long after the window's beginning the endpoint became steady, 0 where the window began in time. `sign`: what shows
    it: "in flight", "ttft" or "tpot"."""

    steady_s: float
    late_s: float = 0.0
    sign: str = ""


def settle(folder: Path) -> None:
    """Where run.json says that a warm-up is sought, finds it in the rows, and has the step's window begin there: where
    the last of its targets became steady, or after the LONGEST start, where there is no answer. Each round of a series
    has its own. A run that is still going on, or was killed, stays as it is. Raises InputError as `open_run` does."""
    if rounds := round_folders(folder):
        for each in rounds.values():
            with suppress(InputError):  # a lost round has nothing to find
                settle(each)
        return
    facts = run_json.read(folder) if (folder / run_json.FILE).exists() else run_json.unknown(folder.name)
    if facts.ended != "running" and any(step.warmup == "sought" for step in facts.steps):
        run = open_run(folder)
        run_json.write(folder, replace(facts, steps=tuple(_found(run, step) for step in facts.steps)))


def _found(run: Run, step: StepFacts) -> StepFacts:
    if step.warmup != "sought":
        return step
    groups = {target: rows for (target, name), rows in run.groups() if name == step.name and target in step.planned}
    begin, end = next((run.window((target, step.name), rows) for target, rows in groups.items()), (step.start, 0.0))
    starts = [start_of(rows, step.start, (begin, end)).steady_s for rows in groups.values()]
    longest = LONGEST * (end - begin) / NS_PER_S
    seconds = max((longest if isnan(start) else start for start in starts), default=0.0)
    window = (step.start + round(seconds * NS_PER_S), step.window[1])
    return replace(step, window=window, warmup_s=seconds, warmup="found")


def starts(run: Run, sample: Sample) -> tuple[Start, ...]:
    """Of each of the sample's rounds."""
    steps = {part.round: part.step((sample.target, sample.step)) for part in run.parts}
    begins = [(each, steps.get(each.round)) for each in sample.rounds]
    return tuple(start_of(each.rows, step.start if step else each.window[0], each.window) for each, step in begins)


def start_of(rows: pd.DataFrame, begin: float, window: tuple[float, float]) -> Start:
    """`rows`: one target's in one step, warm-up included; `begin`: when the step began; `window`: of counted arrivals;
    instants in ns from the run's start."""
    counted, sign = steady_from(rows, *window)
    if counted != window[0]:  # the window has a start of its own, or is too small
        return Start((counted - begin) / NS_PER_S, max(0.0, counted - window[0]) / NS_PER_S, sign)
    steady, sign = steady_from(rows, begin, window[1])
    return Start((float(np.fmin(steady, counted)) - begin) / NS_PER_S, 0.0, sign)


def steady_from(rows: pd.DataFrame, begin: float, end: float) -> tuple[float, str]:
    """The instant from which on arrivals between `begin` and `end` were served alike, and what showed it; `begin`
    itself where nothing shows a start, nan where there is no answer. In ns."""
    due = rows["due"].to_numpy(np.float64)
    inside = (due >= begin) & (due < end)
    if inside.sum() < FEWEST:
        return nan, ""
    instants = {"in flight": _filled(rows, begin, end)}
    for metric in METRICS:
        values = np.where(rows["ok"], rows[metric], inf)[inside]
        known = ~np.isnan(values)
        order = np.argsort(due[inside][known], kind="stable")
        instants[metric] = _settled(due[inside][known][order], values[known][order], begin, end)
    sign = max(instants, key=lambda name: instants[name])
    last = instants[sign]
    return (nan, sign) if last > begin + LONGEST * (end - begin) else (last, sign if last > begin else "")


def _filled(rows: pd.DataFrame, begin: float, end: float) -> float:
    """When the requests in flight first reached their later median, if all their later levels are above the first."""
    at = np.linspace(begin, end, LEVELS)
    levels = backlog(rows, at)
    later = levels[LEVELS // 2 :]
    usual = float(np.median(later))
    empty = levels[0] < min(float(later.min()), usual / 2)
    return float(at[np.argmax(levels >= usual)]) if empty else begin


def _settled(due: Values, values: Values, begin: float, end: float) -> float:
    """The end of MSER-5's head, if it differs from what follows. `values` in the order of `due`."""
    if len(values) < FEWEST:
        return begin
    ranked = _ranks(values)
    head = _head(ranked[: len(ranked) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1))
    if not head:
        return begin
    at = float(due[head * BATCH])
    if at <= begin:  # all of the head came at once, as sessions may begin
        return begin
    return at if _differs(ranked, (due - begin) / (at - begin), int((end - begin) / (at - begin))) else begin


def _head(means: Values) -> int:
    """MSER's d: the number of means that make the start."""
    n = len(means)
    left = np.arange(n, 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (means, means**2))
    return int(np.argmin(((squares - sums**2 / left) / left**2)[: int(LONGEST * n) + 1]))


def _differs(values: Values, lengths: Values, whole: int) -> bool:
    """Does the mean of the first block lie outside the prediction interval of the others'? `lengths`: when each value
    was due, in lengths of a block; `whole`: how many blocks are."""
    block = lengths.astype(np.int64)
    inside = block < whole
    n = np.bincount(block[inside], minlength=whole)
    sums = np.bincount(block[inside], values[inside], minlength=whole)
    means = sums[n >= BATCH] / n[n >= BATCH]
    if len(means) < 4 or n[0] < BATCH:
        return False
    others = len(means) - 1
    # Blocks that agree by chance know no less than independent requests would.
    spread = max(float(means[1:].std(ddof=1)), float(values.std()) / sqrt(n[0]))
    apart = abs(float(means[0]) - float(means[1:].mean()))
    return apart > T[min(others - 3, len(T) - 1)] * spread * sqrt(1 + 1 / others)


def _ranks(values: Values) -> Values:
    """From 0 to 1; equal values share the mean of their ranks."""
    _, place, n = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = ((np.cumsum(n) - (n + 1) / 2)[place] + 0.5) / len(values)
    return ranks
