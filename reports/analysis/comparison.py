"""Paired comparison: the same request on two endpoints, and what the ratio of its two durations says.

Every request of a trace goes to each target, so the lengths, which differ far more from request to request than the
targets do, cancel in the ratio. Neighbours wait in the same queue and are not independent: the median ratio has its
interval from the batches of the window (`quantiles`). It takes failures as they are: a request that only one endpoint
answered is won by that one without bound. The ratio of the p99s is not a quantile of ratios; its interval comes from a
paired bootstrap, seeded, over blocks of neighbouring requests.

A ratio is other / base: below 1 the other is faster. A metric is won only where the interval excludes 1, by LEAST or
more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, isnan

import numpy as np
import numpy.typing as npt
import pandas as pd

from traces.errors import InputError
from traces.request import NS_PER_S

from ..store.durations import HEADLINES
from ..store.run_folder import Key, Run
from . import quantiles, samples, shares
from .quantiles import BATCHES, Ordered, Values, batch_of, finite

LEAST = 1.02  # a difference of less than 2 % is no lead, however many pairs prove it
SAME_LENGTH = 0.10  # the largest difference of median given lengths at which whole requests are comparable
RESAMPLES = 1000
WORK = 40_000_000  # values drawn by one bootstrap at most
SEED = 20_240_229


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


@dataclass(frozen=True, slots=True)
class Ratio:
    """The `n` pairs that have a metric: the median of their ratios, the shares that each side won, the `winner` (None
    where neither is clearly faster), and the ratio of the two p99s (None where there are too few pairs for it)."""

    n: int
    median: Interval
    base_won: float
    other_won: float
    winner: str | None
    p99: Interval | None


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
    """Two targets in one load step. `metrics`: None where there are too few pairs, or lengths that differ."""

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


def compare(run: Run, other: Run | None = None, *, base: str = "") -> list[Comparison]:
    """Every pair of the run's targets in each load step (with `base`: its pairs only), or the run against a later one.
    Raises InputError where `base` is no target of the run, and where the two runs have no requests in common."""
    if other is not None:
        return of_runs(run, other)
    groups = dict(run.groups())
    names = list(dict.fromkeys(target for target, _ in groups))
    if base and base not in names:
        raise InputError(f"no target {base!r} here", where=str(run.place), remedy=f"there are {', '.join(names)}")
    return of_groups(groups, base)


def of_groups(groups: Mapping[Key, pd.DataFrame], base: str = "") -> list[Comparison]:
    """`groups`: the rows of each target in each load step. Empty for one target."""
    names = list(dict.fromkeys(target for target, _ in groups))
    pairs = [(base, name) for name in names if name != base] if base else list(combinations(names, 2))
    steps = list(dict.fromkeys(step for _, step in groups))
    return [
        of_pair(groups[first, step], groups[second, step], first, second, step)
        for first, second in pairs
        for step in steps
        if (first, step) in groups and (second, step) in groups
    ]


def of_runs(before: Run, after: Run) -> list[Comparison]:
    """The same target and step in two runs of one trace and, where they took their words from one, of one corpus;
    runs of a single target each are paired whatever its name."""
    where = f"{before.place} and {after.place}"
    differing = {"trace": "replayed different traces", "prompts": "took their prompts from different texts"}
    for fact, what in differing.items():
        prints = [getattr(getattr(run.facts, fact), "fingerprint", None) for run in (before, after)]
        if prints[0] != prints[1]:
            raise InputError(f"the runs {what}: there are no pairs", where=where)
    first, second = dict(before.groups()), dict(after.groups())
    keys: list[tuple[Key, Key]] = [(key, key) for key in first if key in second]
    if not keys and len({target for target, _ in first}) == len({target for target, _ in second}) == 1:
        keys = [(a, b) for a in first for b in second if a[1] == b[1]]
    if not keys:
        raise InputError("the runs have no target and load step in common", where=where)
    names = (before.name, after.name)
    if before.name == after.name:
        names = (str(before.place), str(after.place))
    return [of_pair(first[a], second[b], f"{a[0]} ({names[0]})", f"{b[0]} ({names[1]})", a[1]) for a, b in keys]


def of_pair(base: pd.DataFrame, other: pd.DataFrame, base_name: str, other_name: str, step: str) -> Comparison:
    """The rows of two targets in one step; ratios are other / base."""
    pairs = _paired(base, other)
    lengths, due = _lengths(pairs), pairs["due_base"]
    window = (int(due.min()), int(due.max()) + 1) if len(pairs) else (0, 1)
    hidden = () if lengths.comparable else ("e2e",)
    by_output = () if hidden else _bucketed(pairs, "output_count", pairs["output_tokens_base"], "e2e", window)
    return Comparison(
        base=base_name, other=other_name, step=step, pairs=len(pairs), base_failed=int((~pairs["ok_base"]).sum()),
        other_failed=int((~pairs["ok_other"]).sum()), lengths=lengths,
        metrics={m: None if m in hidden else _ratio(pairs, m, base_name, other_name, window) for m in HEADLINES},
        by_prompt=list(_bucketed(pairs, "prompt_tokens", pairs["prompt_tokens_base"], "ttft", window)),
        by_output=list(by_output),
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


def ratios(pairs: pd.DataFrame, metric: str, window: tuple[float, float]) -> Ordered:
    """other / base of each pair: without bound where only the base answered, 0 where only the other did; nothing where
    neither did."""
    base, other, defined = _sides(pairs, metric)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotients = other / base  # inf / inf is nan: neither answered
    batch = batch_of(pairs["due_base"].to_numpy()[defined], window)
    lost = np.bincount(batch[np.isposinf(quotients)], minlength=BATCHES)
    return Ordered.of(quotients, batch, lost, (window[1] - window[0]) / NS_PER_S)


def _ratio(pairs: pd.DataFrame, metric: str, base: str, other: str, window: tuple[float, float]) -> Ratio | None:
    """None where too few pairs have the metric to bound the median."""
    quotients = ratios(pairs, metric, window)
    if quotients.n < quantiles.needed(0.5):
        return None
    median = _median(quotients)
    return Ratio(
        n=quotients.n, median=median, base_won=float(quotients.beyond(1.0, inclusive=False).sum() / quotients.n),
        other_won=1 - float(quotients.beyond(1.0, inclusive=True).sum() / quotients.n),
        winner={1: base, 0: None, -1: other}[median.faster], p99=_p99(pairs, metric),
    )  # fmt: skip


def _median(quotients: Ordered) -> Interval:
    """The median ratio with its interval; where the pairs give none, on which side of 1 it lies, if they show that."""
    median = quantiles.quantile(quotients, 0.5)
    low, high = median.low, median.high
    if isnan(low):
        above = shares.share(quotients.beyond(1.0, inclusive=False), quotients.sizes)
        below = shares.share(quotients.sizes - quotients.beyond(1.0, inclusive=True), quotients.sizes)
        low, high = float(above.low > 0.5), 1.0 if below.low > 0.5 else inf
    return Interval(finite(_middle(quotients)), finite(low), finite(high))


def _middle(quotients: Ordered) -> float:
    """The median; the upper one of the two middle ones where they can't be averaged."""
    ordered = np.append(quotients.values, np.full(int(quotients.failed.sum()), inf))
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(sum(middle) / 2) if isfinite(middle[1]) else float(middle[1])


def _p99(pairs: pd.DataFrame, metric: str) -> Interval | None:
    """The ratio of the two p99s with its bootstrap interval; None where a sample can't bound a p99."""
    base, other, _ = _sides(pairs, metric)
    if len(base) < quantiles.needed(0.99):
        return None
    low, high = bootstrap(base, other, 0.99)
    measured = _quotient(_at(base, 0.99), _at(other, 0.99))
    return None if isnan(measured) else Interval(finite(measured), finite(low), finite(high))


def bootstrap(base: Values, other: Values, q: float, seed: int = SEED) -> tuple[float, float]:
    """95 % interval of quantile(other) / quantile(base): circular blocks of neighbouring pairs, resampled together."""
    n = len(base)
    length = max(1, round(n ** (1 / 3)))
    blocks = -(-n // length)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(max(100, min(RESAMPLES, WORK // n))):
        starts = rng.integers(0, n, blocks)
        rows = ((starts[:, None] + np.arange(length)) % n).ravel()[:n]
        drawn.append(_quotient(_at(base[rows], q), _at(other[rows], q)))
    ordered = np.sort([ratio for ratio in drawn if not isnan(ratio)])
    if not len(ordered):
        return 0.0, inf
    return float(ordered[int(0.025 * (len(ordered) - 1))]), float(ordered[int(np.ceil(0.975 * (len(ordered) - 1)))])


def _at(values: Values, q: float) -> float:
    """By rank, because failures are inf and can't be interpolated."""
    position = min(len(values) - 1, int(np.ceil(q * (len(values) - 1))))
    return float(np.partition(values, position)[position])


def _quotient(base: float, other: float) -> float:
    if not isfinite(base):
        return 0.0 if isfinite(other) else float("nan")
    return other / base if base > 0 else float("nan")


def _bucketed(
    pairs: pd.DataFrame, name: str, values: pd.Series[float], metric: str, window: tuple[float, float]
) -> Iterator[Bucket]:
    """The median ratio at matched lengths: the bucket is the request's, the same on both sides."""
    for low, part in pairs.groupby(samples.bucket(values, name), observed=True):
        quotients, label = ratios(part, metric, window), samples.label(name, int(low))
        if quotients.n < quantiles.needed(0.5):
            yield Bucket(label, quotients.n, metric)
        else:
            yield BoundedBucket(label, quotients.n, metric, _median(quotients))
