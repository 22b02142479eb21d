"""A share of requests (beyond a limit, failed, good) and how sure it is: what gates are decided by. Pure.

Theory of operation. Whether a request exceeds a limit depends on its neighbours, which share its queue: the share's
standard error comes from the scatter between parts of the run (`quantiles` has the formula). The parts are the batches
of its windows; from FIRM rounds on also the rounds, and the larger error counts, with the rounds' fewer degrees of
freedom. Bounds are Wilson's (1927) with Student's t for the normal quantile and the effective sample for n: never
outside [0, 1], and above 0 where nothing happened.

Where that decides nothing, `more` says how much longer the run would have to be. Given the effective sample (less what
its own estimate may be off by: CAUTION), each true share has a likelihood; the time is the shortest after which the
bounds would clear the limit, on either side, with probability LIKELY. It can't be told where fewer than ENOUGH
effective requests are to be expected beyond the limit, or where it is more than FURTHEST times the run: the share is
then too near to its limit.

Whoever looks after each round and stops at the first decision decides wrongly more often than someone who looks once.
`level` makes each of `looks` looks stricter by as much (Bonferroni's inequality, which holds however the looks depend
on each other).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import erf, inf, nan, sqrt

import numpy as np

from .quantiles import BATCHES, BEYOND, ONE_SIDED, Counts, Ordered, Values, effective_sample, standard_error
from .student import t

FIRM = 5  # rounds, from which on their own scatter decides
LIKELY, CAUTION, FURTHEST, ENOUGH = 0.85, 0.7, 32, 12
LONGER = np.geomspace(1.1, FURTHEST, 32).tolist()  # times the run, that `more` tries
POINTS = 100  # shares at which it takes the likelihood


@dataclass(frozen=True, slots=True)
class Share:
    """The share of `n` requests that do something (exceed a limit, fail), with one-sided 95 % bounds on either side:
    `low` > p says that the endpoint's share is above p, `high` < p that it is below. `effective`: the independent
    requests that they are worth."""

    value: float
    low: float
    high: float
    n: int
    effective: float
    z: float = 1.645  # standard errors to either bound

    def side(self, limit: float) -> int:
        """-1 where the endpoint's share is below the limit, 1 where it is above, 0 where neither is shown."""
        return int(self.low > limit) - int(self.high < limit)

    def more(self, limit: float) -> float:
        """How much longer the run would have to be for the share to be told from `limit`, as a multiple of what it was:
        0.5 is half as long again. nan where too little is known to say, inf where the limit is too near."""
        if not 0 < limit < 1 or self.effective * min(limit, 1 - limit) < ENOUGH:
            return nan
        n = CAUTION * self.effective
        width = 6 * sqrt(max(self.value * (1 - self.value), limit * (1 - limit)) / n)
        lowest, highest = min(self.value, limit) - width, max(self.value, limit) + width
        true = np.linspace(max(1e-9, lowest), min(1 - 1e-9, highest), POINTS)
        likelihood = (self.value * n - 0.5) * np.log(true) + ((1 - self.value) * n - 0.5) * np.log1p(-true)
        weights = np.exp(likelihood - likelihood.max())

        def decided(times: float) -> float:
            """The probability that the bounds clear the limit in a run of so many times the length."""
            mean = (self.value + (times - 1) * true) / times
            sd = np.sqrt((times - 1) * true * (1 - true) / n) / times
            clear = self.z * sqrt(limit * (1 - limit) / (times * n))
            return float(np.average(_beyond((limit - clear - mean) / sd, (limit + clear - mean) / sd), weights=weights))

        first = bisect_left(LONGER, LIKELY, key=decided)
        return LONGER[first] - 1 if first < len(LONGER) else inf

    def least(self, limit: float) -> float:
        """Where `more` is nan: how much longer the run would have to be at least, twice as long or more."""
        expected = self.effective * min(limit, 1 - limit)
        return max(1.0, ENOUGH / expected - 1) if expected > 0 else 1.0


def _beyond(low: Values, high: Values) -> Values:
    """P(Z < low or Z > high) of the normal distribution."""
    return np.array([1 + (erf(a / sqrt(2)) - erf(b / sqrt(2))) / 2 for a, b in zip(low, high, strict=True)])


def level(looks: int = 1) -> float:
    """The share of the distribution below a bound that is looked at so many times."""
    return 1 - (1 - ONE_SIDED) / max(1, looks)


def share(events: Counts, sizes: Counts, latencies: Ordered | None = None, level: float = ONE_SIDED) -> Share:
    """The share of requests with an event, both counted by batch.

    Few events tell little about how they cluster: where there are fewer than BEYOND, the clustering of the largest
    `latencies`, where what happens has to do with these, stands in for theirs.
    """
    n, happened = int(sizes.sum()), int(events.sum())
    if not n:
        return Share(nan, 0.0, 1.0, 0, 0.0)
    p = happened / n
    deviations = [(p, events - p * sizes)]
    if latencies and min(happened, n - happened) < BEYOND:
        deviations += [(q, latencies.excess(q)) for q in (0.9, 0.99)]
    rounds = len(sizes) // BATCHES
    effective = min(effective_sample(standard_error(d, n), q, n) for q, d in deviations)
    df = len(sizes) - 1
    if rounds >= FIRM:
        sums = [(q, d.reshape(rounds, BATCHES).sum(axis=1)) for q, d in deviations]
        effective, df = min(effective, *(effective_sample(standard_error(d, n), q, n) for q, d in sums)), rounds - 1
    z = t(df, level)
    return Share(p, *wilson(p, effective, z), n, effective, z)


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's bounds of a share p of n."""
    centre, width = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + side) / (1 + z * z / n) for side in (-width, width))
    return max(0.0, low) if p else 0.0, min(1.0, high) if p < 1 else 1.0
