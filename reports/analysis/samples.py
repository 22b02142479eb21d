"""The samples of a run, built once: summary, gates, comparison, report and the points of a sweep read the same ones.

A sample is what one target answered in one load step: its rows, the sorted durations of each metric, and the counts
and rates that follow from them. Its slices, by requests in flight at send, prompt length and output length, are
marginal, never crossed: cells would be empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, cast

import numpy as np
import pandas as pd

from traces.errors import InputError
from traces.request import NS_PER_S

from ..store.digests import METRICS, UNADJUSTED, Digests
from ..store.durations import BRACKETS, DURATIONS
from ..store.run_folder import Key, Run
from . import quantiles, steadiness
from .gate_grammar import SLICE_OPERATORS, Condition
from .quantiles import BATCHES, Counts, Ordered, Quantile, Values, batch_of, finite
from .steadiness import Steadiness

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
NOTHING = np.array([], np.float64)
# By what requests are sliced: lower edges of the buckets, the last of which is open.
SLICES: dict[str, tuple[int, ...]] = {
    "in_flight": (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025),
    "prompt_tokens": (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072),
    "output_count": (0, 16, 64, 128, 256, 512, 1024, 2048, 4096),
}
SLICED = ("ttft", "ttft_from_due", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Throughput:
    requests_per_s: float
    output_tokens_per_s: float


@dataclass(frozen=True)
class Sample:
    """One target in one load step. `n` requests were counted (due inside the window), of which `failed` have no
    latency; `good` met every objective, and `goodput` is the part of the throughput's requests a second that did (None
    without objectives). `ordered`: metric -> seconds of the answered requests (lateness and client lag: of all counted
    ones) and the batches of the window that they belong to; `gaps`: sorted seconds between reads, which belong to no
    request. `sizes`, `good_in`: counted and good requests by batch. `window` is in ns from the run's start.

    Of several rounds: counts are sums, rates the means over their windows, batches one round's after the other, and
    `window` reaches from the first begin to the last end."""

    target: str
    step: str
    n: int
    failed: int
    window: tuple[float, float]
    ordered: Mapping[str, Ordered]
    gaps: Values
    sizes: Counts
    throughput: Throughput
    good: int | None = None
    good_in: Counts | None = None
    goodput: float | None = None
    good_tokens_per_s: float | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)  # warm-up included
    objectives: Mapping[str, float] = field(default_factory=dict)  # metric -> seconds
    round: int = 1
    factor: float = 1.0  # the load's multiple of the base load
    parts: tuple[Sample, ...] = ()

    @property
    def rounds(self) -> tuple[Sample, ...]:
        """The sample of each round; of a plain run itself alone."""
        return self.parts or (self,)

    @cached_property
    def steadiness(self) -> Steadiness:
        return steadiness.over_rounds([steadiness.of_window(each.rows, each.window) for each in self.rounds])

    @cached_property
    def values(self) -> dict[str, Values]:
        """Metric -> sorted, finite seconds; "itl": of the gaps."""
        return {name: ordered.values for name, ordered in self.ordered.items()} | {"itl": self.gaps}

    @property
    def window_s(self) -> float:
        """Seconds that count, of all rounds."""
        return sum(each.window[1] - each.window[0] for each in self.rounds) / NS_PER_S

    @property
    def counted(self) -> pd.DataFrame:
        return self.rows[self.rows["counted"]]

    @property
    def answered(self) -> pd.DataFrame:
        return self.rows[self.rows["counted"] & self.rows["ok"]]

    @property
    def brackets(self) -> dict[str, tuple[float, float]]:
        """ "ttft p50" -> the answered requests' quantile at both ends of their first and last tokens' brackets."""
        return {
            f"{name} {label}": (quantiles.at(self.values[low], q), quantiles.at(self.values[high], q))
            for name, low, high in (("ttft", "ttft_low", "ttft"), ("tpot", "tpot_low", "tpot_high"))
            for q, label in ((0.5, "p50"), (0.99, "p99"))
            if len(self.values[low])
        }

    def failed_in(self, metric: str) -> int:
        """Requests that count as infinitely slow in this metric: none where every counted request has a value, and none
        in ITL, whose sample is gaps."""
        return 0 if metric in UNADJUSTED else self.failed

    def quantile(self, metric: str, q: float) -> Quantile:
        """Failures rank as infinitely slow. Gaps of one request depend on each other: no interval from them."""
        if metric == "itl":
            return quantiles.plain(self.gaps, q)
        return quantiles.quantile(self.ordered[metric], q)


def samples_of(run: Run, objectives: Mapping[str, float]) -> dict[Key, Sample]:
    """By target and step, in the order of a report. `objectives`: metric -> seconds; {} for none."""
    found: dict[Key, list[Sample]] = {key: [] for key, _ in run.groups()}
    for part in run.parts:
        for key, rows in part.groups():
            gaps = part.gaps.get(key, NOTHING)
            one, step = sample(*key, rows, part.window(key, rows), objectives, gaps), part.step(key)
            found[key].append(replace(one, round=part.round, factor=step.factor if step else 1.0))
    return {key: pooled(rounds) for key, rounds in found.items()}


def pooled(rounds: Sequence[Sample]) -> Sample:
    """The rounds' samples of one target in one step as one."""
    first, last = rounds[0], rounds[-1]
    if len(rounds) == 1:
        return first
    gaps = np.concatenate([each.gaps for each in rounds])
    gaps.sort()

    def rate(of: Callable[[Sample], float | None]) -> float | None:
        known = [(value, each.window_s) for each in rounds if (value := of(each)) is not None]
        seconds = sum(window_s for _, window_s in known)
        return sum(value * window_s for value, window_s in known) / seconds if seconds else None

    return replace(
        first, n=sum(each.n for each in rounds), failed=sum(each.failed for each in rounds),
        window=(first.window[0], last.window[1]), gaps=gaps,
        ordered={name: Ordered.pooled([each.ordered[name] for each in rounds]) for name in first.ordered},
        sizes=np.concatenate([each.sizes for each in rounds]),
        throughput=Throughput(
            rate(lambda each: each.throughput.requests_per_s) or 0.0,
            rate(lambda each: each.throughput.output_tokens_per_s) or 0.0,
        ),
        good=None if first.good is None else sum(each.good or 0 for each in rounds),
        good_in=None if first.good_in is None else np.concatenate([each.good_in for each in rounds]),
        goodput=rate(lambda each: each.goodput), good_tokens_per_s=rate(lambda each: each.good_tokens_per_s),
        rows=pd.concat([each.rows for each in rounds], ignore_index=True), parts=tuple(rounds),
    )  # fmt: skip


def sample(
    target: str, step: str, rows: pd.DataFrame, window: tuple[float, float], objectives: Mapping[str, float],
    gaps: Values = NOTHING,
) -> Sample:  # fmt: skip
    """`rows`: one target's in one step, warm-up included, with the columns of `durations.of_exchanges` or
    `durations.joined`; `window`: ns from the run's start; `gaps`: sorted ITL in seconds, where they were kept."""
    counted = rows[rows["counted"]]
    answered = counted[counted["ok"]]
    ordered = _ordered(counted, (*DURATIONS, *BRACKETS), window)
    batch, ok = batch_of(counted["due"].to_numpy(), window), counted["ok"].to_numpy()
    sizes, failed = np.bincount(batch, minlength=BATCHES), int((~ok).sum())
    throughput, tokens = rates(rows, window), answered["output_count"]
    result = Sample(
        target, step, len(counted), failed, window, ordered, gaps, sizes, throughput, rows=rows, objectives=objectives
    )
    if not objectives:
        return result
    good = meets(answered, objectives)
    share = float(tokens[good].sum() / tokens.sum()) if tokens.sum() else None
    good_tokens = None if share is None else share * throughput.output_tokens_per_s
    goodput = float(meets(ended(rows, window), objectives).sum() / result.window_s) if result.window_s else None
    good_in = np.bincount(batch[ok][good.to_numpy()], minlength=BATCHES)
    return replace(result, good=int(good.sum()), good_in=good_in, goodput=goodput, good_tokens_per_s=good_tokens)


def sliced(whole: Sample, where: Sequence[Condition]) -> Sample:
    """The requests for which every condition holds, as a sample of their own in the same window, each round's by
    itself; without gaps, which belong to no request. A request that has no value (in flight, of one that was never
    sent) is in no slice by it."""

    def part(of: Sample) -> Sample:
        chosen = np.ones(len(of.rows), np.bool_)
        for condition in where:
            values = of.rows[condition.field].to_numpy(np.float64)
            chosen &= SLICE_OPERATORS[condition.op](values, condition.number) & ~np.isnan(values)
        return replace(
            sample(of.target, of.step, of.rows[chosen], of.window, of.objectives), round=of.round, factor=of.factor
        )

    return pooled([part(each) for each in whole.rounds])


def _ordered(counted: pd.DataFrame, metrics: Iterable[str], window: tuple[float, float]) -> dict[str, Ordered]:
    """Failed requests have no latency; the client's own durations are taken from all of them."""
    batch, ok = batch_of(counted["due"].to_numpy(), window), counted["ok"].to_numpy()
    failed, seconds = np.bincount(batch[~ok], minlength=BATCHES), (window[1] - window[0]) / NS_PER_S
    return {
        name: Ordered.of(counted[name].to_numpy(), batch, np.zeros_like(failed), seconds)
        if name in UNADJUSTED
        else Ordered.of(counted[name].to_numpy()[ok], batch[ok], failed, seconds)
        for name in metrics
    }


def ended(rows: pd.DataFrame, window: tuple[float, float]) -> pd.DataFrame:
    """What was answered inside the window (ns), whenever its request was due."""
    return rows[rows["ok"] & (rows["done"] >= window[0]) & (rows["done"] < window[1])]


def rates(rows: pd.DataFrame, window: tuple[float, float]) -> Throughput:
    """What really arrived inside the window (ns), whenever its request was due: what is drained after the window must
    not count. A stream's tokens are spread evenly from its first to its last. `rows` includes the warm-up's."""
    begin, end = window
    window_s = (end - begin) / NS_PER_S
    if window_s <= 0:
        return Throughput(0.0, 0.0)
    first, last = rows["first_token"].to_numpy(), rows["last_token"].to_numpy()
    inside = np.minimum(last, end) - np.maximum(first, begin)
    length = np.maximum(last - first, 1)
    share = np.clip(np.where(last > first, inside / length, (first >= begin) & (first < end)), 0, 1)
    tokens = np.nansum(share * rows["output_count"].to_numpy())
    return Throughput(len(ended(rows, window)) / window_s, float(tokens / window_s))


def meets(answered: pd.DataFrame, objectives: Mapping[str, float]) -> pd.Series[bool]:
    """Which answered requests met every objective (metric -> seconds). An undefined figure (TPOT of one token) violates
    nothing; but whoever gets a whole answer and no stream waits for the first token until its end."""
    good = pd.Series(True, index=answered.index)
    for metric, limit in objectives.items():
        times = answered[metric]
        if metric in ("ttft", "ttft_from_due"):
            times = times.fillna(answered["e2e"])
        good &= ~(times > limit)
    return good


@dataclass(frozen=True, slots=True)
class DigestedQuantile(Quantile):
    """Beside the exact quantile the t-digest's, of the values alone, and how far it is off (0.01: 1 % too high)."""

    digest: float | None
    digest_error: float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """`n` values, and `failed` requests that rank as infinitely slow in the quantiles; the rest is of the values."""

    n: int
    failed: int
    mean: float | None
    min: float | None
    max: float | None
    quantiles: tuple[Quantile, ...]

    def at(self, q: float) -> Quantile:
        """In seconds. Raises InputError unless `q` is one of QUANTILES."""
        if q not in QUANTILES:
            raise InputError(f"no quantile {q!r}", where="quantile", remedy=f"one of {', '.join(map(str, QUANTILES))}")
        return self.quantiles[QUANTILES.index(q)]


def metric(sample: Sample, name: str, digests: Digests) -> Metric:
    values = sample.values[name]
    rows = [sample.quantile(name, q) for q in QUANTILES]
    if name in METRICS:
        rows = [_digested(row, digests.quantile(sample.target, sample.step, name, row.q)) for row in rows]
    return Metric(
        n=len(values), failed=sample.failed_in(name), mean=finite(float(values.mean())) if len(values) else None,
        min=float(values[0]) if len(values) else None, max=float(values[-1]) if len(values) else None,
        quantiles=tuple(rows),
    )  # fmt: skip


def _digested(quantile: Quantile, digest: float) -> DigestedQuantile:
    exact = finite(quantile.answered)
    error = digest / exact - 1 if exact and finite(digest) is not None else None
    return DigestedQuantile(**asdict(quantile), digest=finite(digest), digest_error=error)


@dataclass(frozen=True, slots=True)
class Slice:
    """The requests of one bucket, from `low` on; p50 and p99 of each metric (s), failures as in all quantiles."""

    bucket: str
    low: int
    n: int
    failed: int
    ttft: tuple[Quantile, ...]
    ttft_from_due: tuple[Quantile, ...]
    tpot: tuple[Quantile, ...]
    e2e: tuple[Quantile, ...]

    def p50(self, metric: str) -> Quantile:
        return cast("tuple[Quantile, ...]", getattr(self, metric))[0]


def bucket(values: pd.Series[float], name: str) -> pd.Series[Any]:
    """The lower edge of each value's bucket; nan stays nan."""
    return pd.cut(values, [*SLICES[name], inf], right=False, labels=list(SLICES[name]))


def label(name: str, low: int) -> str:
    """`3-4`, `2`, `1025+`."""
    high = next((edge - 1 for edge in SLICES[name] if edge > low), None)
    return f"{low:,}+" if high is None else f"{low:,}" if low == high else f"{low:,}-{high:,}"


def slices(counted: pd.DataFrame, name: str) -> list[Slice]:
    """One slice for each bucket that has requests. Output length is what was given, so a failed request has none: that
    table shows answered requests only."""
    rows = counted[counted["ok"]] if name == "output_count" else counted
    return [_slice(part, name, int(low)) for low, part in rows.groupby(bucket(rows[name], name), observed=True)]


def _slice(part: pd.DataFrame, name: str, low: int) -> Slice:
    # A bucket of requests in flight may hold a part of the window only: its batches are of that part.
    rounds = [
        _ordered(rows, SLICED, (int(rows["due"].min()), int(rows["due"].max()) + 1))
        for _, rows in part.groupby("round")
    ]
    figures = {}
    for metric in SLICED:
        ordered = Ordered.pooled([each[metric] for each in rounds])
        figures[metric] = tuple(quantiles.quantile(ordered, q) for q in (0.5, 0.99))
    return Slice(label(name, low), low, len(part), int((~part["ok"]).sum()), **figures)
