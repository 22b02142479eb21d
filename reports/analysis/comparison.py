"""Paired comparison: the same requests on two endpoints, and who was faster. Pure.

Theory of operation. Every request of a trace goes to each target, so the lengths, which differ far more from request to
request than the targets do, cancel in a ratio. A ratio is other / base: below 1 the other is faster. Rounds are the
unit of a decision: from FIRM rounds on, a figure's ratio is that of the two quantiles of each round, and its interval
is Student's t of the logarithms. Fewer rounds decide the median only: neighbours wait in the same queue, and the
pairwise ratios' median has its interval from the scatter between the batches of the windows (`quantiles`). It takes
failures as they are: a request that only one endpoint answered is won by that one without bound.

A tail (the p99s) is decided by FIRM rounds, each with enough requests, where both targets have headroom: in calm
windows near the knee nothing shows how far a p99 moves on another day. Overloaded targets are not ranked.

Page one names a winner in FIGURES figures of a pair. So that all of them together name a wrong one in at most 5 % of
bake-offs of two equal endpoints, each interval leaves out 5 % / FIGURES (Bonferroni's inequality, which holds however
the figures depend on each other), and it must exclude 1 by LEAST or more. `bench.decisions_pairs` measures both errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import ceil, exp, floor, inf, isfinite, sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd

from traces.errors import InputError
from traces.request import NS_PER_S

from .. import number_format
from ..store.durations import HEADLINES
from ..store.run_folder import Key, Run
from . import quantiles, samples, shares
from .firmness import LEAST_S
from .quantiles import BATCHES, BEYOND, Ordered, Values, batch_of, finite
from .samples import Sample
from .shares import FIRM
from .steadiness import Headroom, headroom
from .student import t

LEAST = 1.02  # a difference of less than 2 % is no lead, however many pairs prove it
FIGURES = 6  # p50 and p99 of TTFT, TPOT and E2E
LEVEL = 1 - 0.05 / FIGURES / 2  # the share below an interval's upper end
SAME_LENGTH = 0.10  # the largest difference of median given lengths at which whole requests are comparable
SPANNED = 0.9  # the share of a window that its first and last pair span at least
UNSTABLE = 0.2  # the standard deviation of the rounds' log p99 from which on a tail without headroom is called so

Windows = Mapping[int, tuple[float, float]]  # of each round, ns


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio other / base and its 95 % interval; None where unbounded."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def faster(self) -> int:
        """1 where the interval says that the base is, -1 where the other is; 0 where it holds 1, or the ratio is below
        LEAST. Where only the side of 1 is known, that end is 1 and the other unbounded."""
        if self.low is None or (self.low >= 1 and self.high != 1):
            return int(self.value is None or self.value >= LEAST)
        side = self.high is not None and self.high <= 1 and self.low < 1
        return -int(side and (self.value or 0.0) <= 1 / LEAST)

    @property
    def inverse(self) -> Interval:
        """base / other: what was unbounded becomes 0, and 0 unbounded."""
        ends = (self.value, self.high, self.low)
        return Interval(*(0.0 if end is None else 1 / end if end else None for end in ends))


class Word(StrEnum):
    """What a comparison says of the base."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference shown"
    NOT_COMPARABLE = "not comparable"
    OVERLOADED = "overloaded"
    NO_VERDICT = "no verdict"


@dataclass(frozen=True, slots=True)
class Says:
    """What a comparison says of one figure, and why it says no more; `winner`: the faster one of the two, or None."""

    word: Word
    winner: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The `n` pairs that have a metric: the ratio of the medians over rounds, or of few rounds the median of the pairs'
    ratios; the shares of requests that each side won; and the ratio of the two p99s (None where there are too few
    rounds, or requests in one). `says`, `tail`: what follows for the median and the p99; `winner` is that of the
    median."""

    n: int
    median: Interval
    base_won: float
    other_won: float
    winner: str | None
    p99: Interval | None
    says: Says
    tail: Says


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stood its load: an overloaded one isn't ranked, one without headroom not in the tail."""

    overloaded: bool
    headroom: Headroom


UNKNOWN = Standing(False, Headroom(False, "no headroom shown"))


@dataclass(frozen=True, slots=True)
class GivenLengths:
    """Median output tokens of the requests that both answered; whole requests of unlike lengths aren't compared."""

    base_given_p50: float
    other_given_p50: float
    comparable: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pairs of like length: too few to bound a median ratio."""

    bucket: str
    n: int
    metric: str


@dataclass(frozen=True, slots=True)
class BoundedBucket(Bucket):
    median: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two targets in one load step. `metrics`: None where there are too few pairs, or lengths that differ;
    `overloaded`: those of the two that are."""

    base: str
    other: str
    step: str
    pairs: int
    base_failed: int
    other_failed: int
    lengths: GivenLengths
    metrics: dict[str, Ratio | None]
    by_prompt: list[Bucket]
    by_output: list[Bucket]
    rounds: int = 1
    overloaded: tuple[str, ...] = ()

    def says(self, metric: str, q: float = 0.5) -> Says:
        """Of the p50 (q = 0.5) or the tail."""
        ratio = self.metrics.get(metric)
        if ratio is not None:
            return ratio.says if q == 0.5 else ratio.tail
        if metric == "e2e" and not self.lengths.comparable:
            return Says(Word.NOT_COMPARABLE, why="the answers differ in length")
        return Says(Word.NO_VERDICT, why="too few pairs" if metric in self.metrics else "not compared")


def compare(run: Run, other: Run | None = None, *, base: str = "") -> list[Comparison]:
    """Every pair of the run's targets in each load step (with `base`: its pairs only), or the run against a later one.
    Raises InputError where `base` is no target of the run, and where the two runs have no requests in common."""
    if other is not None:
        return of_runs(run, other)
    whole = samples.samples_of(run, {})
    names = list(dict.fromkeys(target for target, _ in whole))
    if base and base not in names:
        raise InputError(f"no target {base!r} here", where=str(run.place), remedy=f"there are {', '.join(names)}")
    return of_samples(whole, base)


def of_samples(whole: Mapping[Key, Sample], base: str = "") -> list[Comparison]:
    """Of all targets and steps of a run. Empty for one target."""
    names = list(dict.fromkeys(target for target, _ in whole))
    pairs = [(base, name) for name in names if name != base] if base else list(combinations(names, 2))
    steps = list(dict.fromkeys(step for _, step in whole))
    standing = {key: _standing(each, whole) for key, each in whole.items()}
    return [
        of_pair(
            whole[first, step].rows, whole[second, step].rows, first, second, step,
            (standing[first, step], standing[second, step]),
        )
        for first, second in pairs
        for step in steps
        if (first, step) in whole and (second, step) in whole
    ]  # fmt: skip


def _standing(sample: Sample, whole: Mapping[Key, Sample]) -> Standing:
    return Standing(sample.steadiness.overloaded, headroom(sample, whole.values()))


def of_runs(before: Run, after: Run) -> list[Comparison]:
    """The same target and step in two runs of one trace and, where they took their words from one, of one corpus;
    runs of a single target each are paired whatever its name."""
    where = f"{before.place} and {after.place}"
    differing = {"trace": "replayed different traces", "prompts": "took their prompts from different texts"}
    for fact, what in differing.items():
        prints = [getattr(getattr(run.facts, fact), "fingerprint", None) for run in (before, after)]
        if prints[0] != prints[1]:
            raise InputError(f"the runs {what}: there are no pairs", where=where)
    first, second = (samples.samples_of(run, {}) for run in (before, after))
    keys: list[tuple[Key, Key]] = [(key, key) for key in first if key in second]
    if not keys and len({target for target, _ in first}) == len({target for target, _ in second}) == 1:
        keys = [(a, b) for a in first for b in second if a[1] == b[1]]
    if not keys:
        raise InputError("the runs have no target and load step in common", where=where)
    names = (before.name, after.name)
    if before.name == after.name:
        names = (str(before.place), str(after.place))
    return [
        of_pair(
            first[a].rows, second[b].rows, f"{a[0]} ({names[0]})", f"{b[0]} ({names[1]})", a[1],
            (_standing(first[a], first), _standing(second[b], second)),
        )
        for a, b in keys
    ]  # fmt: skip


def of_pair(
    base: pd.DataFrame, other: pd.DataFrame, base_name: str, other_name: str, step: str,
    standing: tuple[Standing, Standing] = (UNKNOWN, UNKNOWN),
) -> Comparison:  # fmt: skip
    """The rows of two targets in one step; ratios are other / base."""
    pairs = _paired(base, other)
    lengths, names = _lengths(pairs), (base_name, other_name)
    by_round = pairs.groupby("round")["due_base"].agg(["min", "max"])
    windows = {int(number): (int(first), int(last) + 1) for number, first, last in by_round.itertuples()}
    hidden = () if lengths.comparable else ("e2e",)
    by_output = () if hidden else _bucketed(pairs, "output_count", pairs["output_tokens_base"], "e2e", windows)
    return Comparison(
        base=base_name, other=other_name, step=step, pairs=len(pairs), base_failed=int((~pairs["ok_base"]).sum()),
        other_failed=int((~pairs["ok_other"]).sum()), lengths=lengths,
        metrics={m: None if m in hidden else _ratio(pairs, m, names, windows, standing) for m in HEADLINES},
        by_prompt=list(_bucketed(pairs, "prompt_tokens", pairs["prompt_tokens_base"], "ttft", windows)),
        by_output=list(by_output), rounds=len(windows),
        overloaded=tuple(name for name, each in zip(names, standing, strict=True) if each.overloaded),
    )  # fmt: skip


def _paired(base: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """One row for each request that is counted on both sides (its first try), in order of due."""
    columns = ["round", "index", "due", "ok", "prompt_tokens", "output_tokens", "output_count", *HEADLINES]
    sides = [rows.loc[rows["counted"] & (rows["attempt"] == 1), columns] for rows in (base, other)]
    both = sides[0].merge(sides[1], on=["round", "index"], suffixes=("_base", "_other"))
    return both.sort_values("due_base", kind="stable", ignore_index=True)


def _lengths(pairs: pd.DataFrame) -> GivenLengths:
    both = pairs[pairs["ok_base"] & pairs["ok_other"]]
    base, other = (float(both[f"output_count_{side}"].median()) if len(both) else 0.0 for side in ("base", "other"))
    return GivenLengths(base, other, bool(len(both)) and abs(other - base) <= SAME_LENGTH * max(base, other))


def _sides(pairs: pd.DataFrame, metric: str) -> tuple[Values, Values, npt.NDArray[np.bool_]]:
    """Both sides' durations, failures inf, of the pairs that have one, and which these are: TPOT of a single token is
    undefined."""
    base, other = (np.where(pairs[f"ok_{side}"], pairs[f"{metric}_{side}"], np.inf) for side in ("base", "other"))
    defined = ~(np.isnan(base) | np.isnan(other))
    return base[defined], other[defined], defined


def ratios(pairs: pd.DataFrame, metric: str, windows: Windows) -> Ordered:
    """other / base of each pair: without bound where only the base answered, 0 where only the other did; nothing where
    neither did. With the batches of each round's window."""
    parts = []
    for number, window in windows.items():
        part = pairs[pairs["round"] == number]
        base, other, defined = _sides(part, metric)
        with np.errstate(invalid="ignore", divide="ignore"):
            quotients = other / base  # inf / inf is nan: neither answered
        batch = batch_of(part["due_base"].to_numpy()[defined], window)
        lost = np.bincount(batch[np.isposinf(quotients)], minlength=BATCHES)
        parts.append(Ordered.of(quotients, batch, lost, (window[1] - window[0]) / NS_PER_S))
    return Ordered.pooled(parts) if parts else Ordered.of(np.empty(0), np.empty(0, np.uint16), np.zeros(10, int), 0.0)


def _ratio(
    pairs: pd.DataFrame, metric: str, names: tuple[str, str], windows: Windows, standing: tuple[Standing, Standing]
) -> Ratio | None:
    """None where too few pairs have the metric to bound the median."""
    quotients = ratios(pairs, metric, windows)
    if quotients.n < quantiles.needed(0.5):
        return None
    sides = [_sides(pairs[pairs["round"] == number], metric)[:2] for number in windows]
    firm = len(sides) >= FIRM
    median = _over_rounds(sides, 0.5) if firm else _median(quotients)
    fewest = min(len(base) for base, _ in sides)
    shortest_s = min(end - begin for begin, end in windows.values()) / NS_PER_S
    enough = firm and fewest >= quantiles.needed(0.99) and shortest_s >= SPANNED * LEAST_S
    p99 = _over_rounds(sides, 0.99) if enough else None
    overloaded = [name for name, each in zip(names, standing, strict=True) if each.overloaded]
    if overloaded:
        says = tail = Says(Word.OVERLOADED, why=f"not ranked: {' and '.join(overloaded)}")
    else:
        why = (
            _no_tail(sides, shortest_s, names, standing)
            if p99 is None or not all(s.headroom.shown for s in standing)
            else ""
        )
        tail = Says(Word.NO_VERDICT, why=why) if p99 is None or why else _says(p99, names)
        says = _says(median, names)
    return Ratio(
        n=quotients.n, median=median, base_won=float(quotients.beyond(1.0, inclusive=False).sum() / quotients.n),
        other_won=1 - float(quotients.beyond(1.0, inclusive=True).sum() / quotients.n), winner=says.winner, p99=p99,
        says=says, tail=tail,
    )  # fmt: skip


def _says(ratio: Interval, names: tuple[str, str]) -> Says:
    if not ratio.faster and (ratio.low, ratio.high) == (0.0, None):
        return Says(Word.NO_VERDICT, why="failures, or too few independent pairs, leave it without bound")
    if not ratio.faster:
        return Says(Word.NO_DIFFERENCE)
    return Says(Word.FASTER, names[0]) if ratio.faster > 0 else Says(Word.SLOWER, names[1])


def _no_tail(
    sides: list[tuple[Values, Values]], shortest_s: float, names: tuple[str, str], standing: tuple[Standing, Standing]
) -> str:
    """Why nothing is said of the tail."""
    if len(sides) < FIRM:
        rounds = {1: "one round names", 2: "two rounds name"}.get(len(sides), f"{len(sides)} rounds name")
        return f"{rounds} no winner of the tail"
    fewest, needed = min(len(base) for base, _ in sides), quantiles.needed(0.99)
    if fewest < needed:
        return f"a round has {fewest:,} pairs, a p99 needs {needed:,}"
    if shortest_s < SPANNED * LEAST_S:
        return f"rounds of {shortest_s:.0f} s, a tail needs {LEAST_S:.0f} s"
    lacking = {}
    for side, (name, each) in enumerate(zip(names, standing, strict=True)):
        if not each.headroom.shown:
            lacking[name] = f"{each.headroom.why}{_unstable([_at(both[side], 0.99) for both in sides])}"
    if len(lacking) == len(names) and len(set(lacking.values())) == 1:
        return lacking[names[0]]
    return "; ".join(f"{name}: {why}" for name, why in lacking.items())


def _unstable(p99s: list[float]) -> str:
    low, high = min(p99s), max(p99s)
    if low == inf or (isfinite(high) and low > 0 and np.log(p99s).std(ddof=1) < UNSTABLE):
        return ""
    ends = f"{number_format.ms(low, unit=True)} and {number_format.ms(high, unit=True)}"
    return f"; unstable: p99 moved between {ends} from round to round"


def _over_rounds(sides: list[tuple[Values, Values]], q: float) -> Interval:
    """The ratio of the two q-quantiles of each round: mean and t-interval of the logarithms. Without bound where one
    side failed so often in every round that it has no quantile; unknown where that holds of some rounds only."""
    quotients = [_quotient(_at(base, q), _at(other, q)) for base, other in sides if len(base)]
    if all(0 < each < inf for each in quotients) and len(quotients) > 1:
        logs = np.log(quotients)
        half = t(len(logs) - 1, LEVEL) * float(logs.std(ddof=1)) / sqrt(len(logs))
        return Interval(*(exp(float(logs.mean()) + side * half) for side in (0, -1, 1)))
    if quotients and all(each == inf for each in quotients):
        return Interval(None, None, None)
    if quotients and not any(quotients):
        return Interval(0.0, 0.0, 0.0)
    return Interval(finite(float(np.median(quotients))) if quotients else None, 0.0, None)


def _median(quotients: Ordered) -> Interval:
    """The median ratio with its interval by batches; where the pairs are worth too few independent ones, on which side
    of 1 it lies, if they show that."""
    n, d = quotients.n, quotients.excess(0.5)
    error = max(quantiles.standard_error(d, n), 0.5 / sqrt(n))
    half = t(len(d) - 1, LEVEL) * error
    if half < 0.5 and 0.25 / error**2 >= 2 * BEYOND:
        ends = _ranked(quotients, floor(n * (0.5 - half))), _ranked(quotients, ceil(n * (0.5 + half)))
    else:
        above = shares.share(quotients.beyond(1.0, inclusive=False), quotients.sizes, level=LEVEL)
        below = shares.share(quotients.sizes - quotients.beyond(1.0, inclusive=True), quotients.sizes, level=LEVEL)
        ends = float(above.low > 0.5), 1.0 if below.low > 0.5 else inf
    return Interval(finite(_middle(quotients)), finite(ends[0]), finite(ends[1]))


def _ranked(quotients: Ordered, rank: int) -> float:
    return float(quotients.values[max(1, rank) - 1]) if max(1, rank) <= len(quotients.values) else inf


def _middle(quotients: Ordered) -> float:
    """The median; the upper one of the two middle ones where they can't be averaged."""
    ordered = np.append(quotients.values, np.full(int(quotients.failed.sum()), inf))
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(sum(middle) / 2) if isfinite(middle[1]) else float(middle[1])


def _at(values: Values, q: float) -> float:
    """By rank, because failures are inf and can't be interpolated."""
    position = min(len(values) - 1, int(np.ceil(q * (len(values) - 1))))
    return float(np.partition(values, position)[position])


def _quotient(base: float, other: float) -> float:
    """Without bound where only the base has a figure, 0 where only the other has; nan where neither."""
    if not isfinite(base):
        return 0.0 if isfinite(other) else float("nan")
    return other / base if base > 0 else float("nan")


def _bucketed(
    pairs: pd.DataFrame, name: str, values: pd.Series[float], metric: str, windows: Windows
) -> Iterator[Bucket]:
    """The median ratio at matched lengths: the bucket is the request's, the same on both sides."""
    for low, part in pairs.groupby(samples.bucket(values, name), observed=True):
        quotients, label = ratios(part, metric, windows), samples.label(name, int(low))
        if quotients.n < quantiles.needed(0.5):
            yield Bucket(label, quotients.n, metric)
        else:
            yield BoundedBucket(label, quotients.n, metric, _median(quotients))
