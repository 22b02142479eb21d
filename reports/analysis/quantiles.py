"""Exact quantiles, failures taken as +inf, and how sure they are where requests share a queue. Pure.

Theory of operation. The quantile is the linear interpolation between order statistics (numpy's default, and what vLLM
prints). With failures, `n` is the number of requests and `n_ok` of those with a value: the adjusted quantile is the
values' quantile(q * n / n_ok), and unbounded (inf) above n_ok / n.

Were the requests independent, the number of samples below the true q-quantile would be binomial(n, q), and ranks l <= u
with P(l <= B < u) >= 95 % would bound it by the order statistics X(l) and X(u) (David and Nagaraja, Order Statistics,
7.1); such ranks exist only where 1 - q^n - (1 - q)^n >= 95 %: p50 needs 6 samples, p95 59, p99 299, p99.9 2,995. But a
slow second makes all of its requests slow, and that interval is then far too narrow. So the window is cut into BATCHES
parts of equal length in time, and the scatter *between* them says how far the figure may move (batch means of the
indicator `value <= quantile`: Meketon and Schmeiser 1984; Muñoz 2010):

    d_j = (requests of batch j at or below the quantile) - q * (requests of batch j)
    se  = sqrt(m / (m - 1) * sum d_j^2) / n           the standard error of the share q
    q -+ t(m - 1) * se, never narrower than binomial   the shares whose order statistics are the interval
    effective = q (1 - q) / se^2                       the number of independent requests that the sample is worth

Over several rounds the figure is the mean of the rounds' quantiles and the interval Student's t of their scatter, both
on logarithms: rounds share no queue, whatever it did inside each.

Of one window there is no interval where the upper share reaches 1, or where fewer than BEYOND effective requests lie
beyond the quantile; none is printed where the batches rise or fall. An interval says what this window's load would give
in the long run, not what another day brings: near saturation it is the calm windows that have intervals
(docs/metrics.md has the table).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor, inf, isfinite, lgamma, log, nan, sqrt
from typing import Any

import numpy as np

from .student import t

Values = np.ndarray[Any, np.dtype[np.float64]]
Batch = np.ndarray[Any, np.dtype[np.uint16]]
Counts = np.ndarray[Any, np.dtype[np.int64]]
CONFIDENCE = 0.95
BATCHES = 10  # of one round's window
BEYOND = 5  # effective requests beyond a quantile, below which nothing is known of it
TREND = t(BATCHES - 2, 0.995)  # two-sided 1 %: the slope over the batches beyond which a window drifts
TWO_SIDED, ONE_SIDED = 0.975, 0.95  # the share below the upper end of an interval, and of a bound


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile of `n` requests (or values), of those without a value too. `value`, `low` and `high` are inf where
    failures leave them unbounded. `low` and `high` are nan where there is no interval: the sample is too small (n <
    needs, not `enough`: print no bare number), or `more_s` further seconds of the same load would be needed. Where the
    batches rise or fall (`drifting`) they bound no steady figure: print none. `answered` is the quantile of the values
    alone; `effective` the number of independent requests that the sample is worth, nan where batches aren't known.
    Of several `rounds`: `worst` is the highest of their quantiles (nan for one round)."""

    q: float
    value: float
    unbounded: bool
    low: float
    high: float
    answered: float
    n: int
    needs: int
    enough: bool
    effective: float
    drifting: bool
    more_s: float
    rounds: int
    worst: float

    @property
    def effective_needed(self) -> float:
        """The smallest effective sample that has an interval: BEYOND lie beyond the quantile and the upper share is
        below 1. p50 needs 10, p90 50, p99 507, p99.9 5,112."""
        tail = min(self.q, 1 - self.q)
        return max(BEYOND, t(BATCHES - 1, TWO_SIDED) ** 2 * (1 - tail)) / tail


@dataclass(frozen=True, slots=True)
class Ordered:
    """One metric's values in a window of `seconds`, sorted, and the batch in which each request was due; `failed`:
    requests without a value, by batch. Failures rank last. Of several rounds: their windows' batches one after the
    other, BATCHES of each, and `seconds` of them all."""

    values: Values
    batch: Batch
    failed: Counts
    seconds: float

    @classmethod
    def of(cls, values: Values, batch: Batch, failed: Counts, seconds: float) -> Ordered:
        """From values in any order; those that aren't finite are left out."""
        kept = np.isfinite(values)
        order = np.argsort(values[kept], kind="stable")
        return cls(values[kept][order], batch[kept][order], failed, seconds)

    @classmethod
    def pooled(cls, rounds: Sequence[Ordered]) -> Ordered:
        """The rounds' requests together."""
        if len(rounds) == 1:
            return rounds[0]
        ends = np.cumsum([len(each.failed) for each in rounds])
        values = np.concatenate([each.values for each in rounds])
        batch = np.concatenate([each.batch + (end - len(each.failed)) for each, end in zip(rounds, ends, strict=True)])
        failed = np.concatenate([each.failed for each in rounds])
        return cls.of(values, batch.astype(np.uint16), failed, sum(each.seconds for each in rounds))

    @property
    def rounds(self) -> list[Ordered]:
        """Those of each round; of one round itself alone."""
        count = len(self.failed) // BATCHES
        if count <= 1:
            return [self]
        of = self.batch // BATCHES
        return [
            Ordered(self.values[of == i], self.batch[of == i] % BATCHES, part, self.seconds / count)
            for i, part in enumerate(np.split(self.failed, count))
        ]

    @property
    def n(self) -> int:
        return len(self.values) + int(self.failed.sum())

    @property
    def sizes(self) -> Counts:
        """Requests by batch."""
        return self._by_batch(self.batch) + self.failed

    def beyond(self, limit: float, *, inclusive: bool) -> Counts:
        """Requests by batch whose value is above the limit (`inclusive`: or equal to it), failures among them."""
        first = np.searchsorted(self.values, limit, side="left" if inclusive else "right")
        return self._by_batch(self.batch[first:]) + self.failed

    def excess(self, q: float) -> Values:
        """How many more requests than q of its own each batch has below the q-quantile. Values that equal the quantile
        are shared out, so that the sum is 0 and a constant has no scatter."""
        x = self.values[int(q * self.n)] if int(q * self.n) < len(self.values) else inf
        first, last = np.searchsorted(self.values, x, side="left"), np.searchsorted(self.values, x, side="right")
        equal = self._by_batch(self.batch[first:last]) if x < inf else self.failed
        share = (q * self.n - first) / max(1, int(equal.sum()))
        d: Values = self._by_batch(self.batch[:first]) + share * equal - q * self.sizes
        return d

    def _by_batch(self, batch: Batch) -> Counts:
        return np.bincount(batch, minlength=len(self.failed))


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None


def batch_of(due: Counts, window: tuple[float, float]) -> Batch:
    """The batch of each due instant (ns) of a window [begin, end) in the same ns."""
    begin, end = window
    batch: Batch = np.clip((due - begin) * (BATCHES / max(1.0, end - begin)), 0, BATCHES - 1).astype(np.uint16)
    return batch


@lru_cache
def needed(q: float) -> int:
    """The smallest sample whose order statistics bound the q-quantile with 95 %."""
    if not 0 < q < 1:
        return 1
    n = max(1, ceil(log(1 - CONFIDENCE) / log(max(q, 1 - q))))
    while 1 - q**n - (1 - q) ** n < CONFIDENCE:
        n += 1
    return n


@lru_cache(maxsize=4096)
def ranks(n: int, q: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that bound the q-quantile of n independent samples; None where none do.
    Tails are equal (2.5 %) where they can be; near the ends of the sample the one rank that is left takes what it needs
    and the other tail gets the rest."""
    if n < needed(q) or not 0 < q < 1:
        return None
    first, mass = _binomial(n, q)
    below = np.concatenate([[0.0], np.cumsum(mass)])  # below[i] = P(B < first + i)
    tail = 1 - CONFIDENCE
    # What can't be had on one side, because no rank lies beyond the last, the other side has to make up for.
    upper_tail, lower_tail = min(tail / 2, tail - (1 - q) ** n), min(tail / 2, tail - q**n)
    low = first + int(np.searchsorted(below, lower_tail, side="right")) - 1
    high = first + int(np.searchsorted(below, 1 - upper_tail - 1e-12))
    return max(1, min(low, n)), max(1, min(high, n))


def _binomial(n: int, q: float) -> tuple[int, Values]:
    """P(B = k) for k from `first` on, over all k that matter (12 standard deviations)."""
    width = 12 * (n * q * (1 - q)) ** 0.5 + 12
    first, last = max(0, int(n * q - width)), min(n, int(n * q + width) + 1)
    k = np.arange(first, last + 1)
    whole = lgamma(n + 1)
    choose = np.array([whole - lgamma(i + 1) - lgamma(n - i + 1) for i in k.tolist()])
    return first, np.exp(choose + k * log(q) + (n - k) * log(1 - q))


def at(values: Values, q: float) -> float:
    """The quantile of sorted values; nan without any, inf where q > 1."""
    if q > 1:
        return inf
    if not len(values):
        return nan
    position = q * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    return float(values[below] + (values[above] - values[below]) * (position - below))


def plain(values: Values, q: float, failed: int = 0) -> Quantile:
    """The adjusted q-quantile of sorted, finite `values` beside `failed` requests that have none; without an interval,
    for values that don't belong to requests of a window."""
    n = len(values) + failed
    value = at(values, q * n / len(values) if len(values) else inf) if n else nan
    return Quantile(
        q, value, value == inf, nan, nan, at(values, q), n, needed(q), n >= needed(q), effective=nan, drifting=False,
        more_s=0.0, rounds=1, worst=nan,
    )  # fmt: skip


def quantile(ordered: Ordered, q: float) -> Quantile:
    """The adjusted q-quantile of the requests with its interval: of one round's window, or over the rounds."""
    rounds = ordered.rounds
    return _of_window(ordered, q) if len(rounds) == 1 else _over_rounds(ordered, [_of_window(r, q) for r in rounds])


def _over_rounds(ordered: Ordered, rounds: Sequence[Quantile]) -> Quantile:
    """The mean of the rounds' quantiles and its t-interval, on logarithms; it is never narrower than it would be if all
    requests were independent."""
    whole = _of_window(ordered, rounds[0].q)
    figures = [each.value for each in rounds if each.n]
    pooled = replace(whole, rounds=len(figures), worst=max(figures, default=nan), drifting=False)
    if not all(figure > 0 for figure in figures) or not all(each.enough for each in rounds if each.n):
        return pooled
    if inf in figures:
        return replace(pooled, value=inf, unbounded=True, low=nan, high=inf)
    if len(figures) < 2:
        return pooled
    logs = np.log(figures)
    half = t(len(logs) - 1, TWO_SIDED) * float(logs.std(ddof=1)) / sqrt(len(logs))
    low, value, high = (float(np.exp(logs.mean() + side * half)) for side in (-1, 0, 1))
    first, last = ranks(ordered.n, whole.q) or (1, ordered.n)
    low, high = min(low, _ranked(ordered.values, first)), max(high, _ranked(ordered.values, last))
    return replace(pooled, value=value, low=low, high=high, more_s=0.0)


def _of_window(ordered: Ordered, q: float) -> Quantile:
    """Batch means."""
    values, n = ordered.values, ordered.n
    figure = plain(values, q, n - len(values))
    independent = ranks(n, q)
    if independent is None:
        return figure
    d = ordered.excess(q)
    se = standard_error(d, n)
    half, effective = t(len(d) - 1, TWO_SIDED) * se, effective_sample(se, q, n)
    if effective < (least := figure.effective_needed):
        return replace(figure, effective=effective, more_s=ordered.seconds * (least / effective - 1))
    low, high = min(independent[0], floor(n * (q - half))), max(independent[1], ceil(n * (q + half)))
    return replace(
        figure,
        low=_ranked(values, max(1, low)),
        high=_ranked(values, high),
        effective=effective,
        drifting=_drifts(d / np.maximum(ordered.sizes, 1)),
    )


def standard_error(d: Values, n: int) -> float:
    """Of a share of n requests, from the deviations of the run's parts from it."""
    return sqrt(len(d) / (len(d) - 1) * float(np.sum(d**2))) / n if n else 0.0


def effective_sample(se: float, p: float, n: int) -> float:
    """Independent requests that have this standard error of a share p; n at most."""
    return min(float(n), p * (1 - p) / se**2) if se and 0 < p < 1 else float(n)


def _drifts(levels: Values) -> bool:
    """Does a straight line through the batches' levels have a slope? A two-sided t test at 1 % (TREND)."""
    if not levels.std():
        return False
    r = float(np.corrcoef(np.arange(len(levels)), levels)[0, 1])
    return abs(r) * sqrt((len(levels) - 2) / max(1e-12, 1 - r * r)) > TREND


def _ranked(values: Values, rank: int) -> float:
    return float(values[rank - 1]) if rank <= len(values) else inf
