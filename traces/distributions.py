"""What a synthetic trace is drawn from: arrival processes, when requests come, and distributions of lengths. Pure
functions of a `Process` (a workload's `arrivals`) or of `Lengths`, and of a generator or uniform draws.

Theory of operation. Real services are bursty on several scales, and there is one mechanism for each:
- `gaps`: between neighbours, drawn in *operational time* with mean 1: constant, exponential (Poisson), gamma or
  weibull with a `shape` (below 1: burstier than Poisson; gamma's CV is shape ** -0.5).
- `wander`: the rate is a random path, rate * Z(t): a Cox process. Z is a mean of CIR diffusions: stationary Gamma
  with mean 1 and `variance` v, autocovariance v * exp(-|dt| / `tau`), so that counts over w seconds have
  variance/mean = 1 + 2 rate v tau (1 - (tau / w)(1 - exp(-w / tau))).
- `rhythm`: {"period": s, "relative": [...]}: relative rates at even steps of a period (a day), joined by lines.
- `bursts`: instead of all that, on and off: bursts of `size` requests, `gap_us` apart, with `off_ms` of silence
  between. Gaps of one burst are alike: `tempo` is the share of their (normal-score) variance that they have in
  common, `drift` the share that wanders inside it, `hurry` the correlation of a burst's size and speed.
- `clients`: a list of processes with a `rate` each, superposed. A few bursty clients carry a service's bursts.

The rate asked for is the mean over the trace: a random path is scaled to it, so that 60 s at 10/s are about 600
requests wherever the path happens to be. Instants are operational time carried through the inverse of the
integrated rate. A renewal process alone loses the slow scales, which are what fills queues.

Lengths come from uniform draws, so that any two can be tied by a copula. In a workload's JSON a distribution is one of
    {"fixed": 1024}
    {"quantiles": [[p, tokens], ...]}                  p from 0 to 1, linear in log(tokens) between
    {"mixture": [[weight, mu, sigma], ...], "max": n}  lognormals, `max` optional
    {"values": [[tokens, weight], ...]}                empirical
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import InputError
from .trace import LONGEST, Floats, Whole
from .typed_json import LEFT_OUT

STEPS_PER_TAU = 64  # of a wander's path; between steps it is a line
DRIFT_DECAY = 0.95  # from one gap of a burst to the next
LONGEST_MS = 2**42  # whose nanoseconds are an int64

_Z = np.linspace(-8.5, 8.5, 8501)
_PHI = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in _Z])


@dataclass(frozen=True)
class Lengths:
    """One of the distributions above, of tokens or of whatever its user says."""

    fixed: float | None = field(default=None, metadata=LEFT_OUT)
    quantiles: tuple[tuple[float, float], ...] | None = field(default=None, metadata=LEFT_OUT)
    mixture: tuple[tuple[float, float, float], ...] | None = field(default=None, metadata=LEFT_OUT)
    max: float | None = field(default=None, metadata=LEFT_OUT)
    values: tuple[tuple[float, float], ...] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Wander:
    """A random path of the rate: `variance` of its relative size, `tau` in seconds."""

    variance: float
    tau: float


@dataclass(frozen=True)
class Rhythm:
    """Relative rates at even steps of a `period` in seconds."""

    period: float
    relative: tuple[float, ...]


@dataclass(frozen=True)
class Bursts:
    """`size` in requests, `off_ms` of silence between bursts, `gap_us` inside one."""

    size: Lengths
    off_ms: Lengths
    gap_us: Lengths
    tempo: float = 0.0
    drift: float = 0.0
    hurry: float = 0.0


@dataclass(frozen=True)
class Process:
    """When requests come. `rate`: a second, where the user doesn't say another."""

    rate: float | None = field(default=None, metadata=LEFT_OUT)
    gaps: str = "exponential"
    shape: float = field(default=1.0, metadata=LEFT_OUT)
    rhythm: Rhythm | None = field(default=None, metadata=LEFT_OUT)
    wander: tuple[Wander, ...] = field(default=(), metadata=LEFT_OUT)
    bursts: Bursts | None = field(default=None, metadata=LEFT_OUT)
    clients: tuple[Process, ...] = field(default=(), metadata=LEFT_OUT)

    @property
    def own_rate(self) -> float:
        """The rate that bursts and clients are scaled from. Raises InputError where there is none."""
        if self.rate is None:
            raise InputError("bursts and clients need a rate", where="arrivals", remedy="see docs/traces.md")
        return self.rate


def arrivals(process: Process, rate: float, duration: float, rng: np.random.Generator) -> Floats:
    """Ascending instants in [0, duration), seconds, at `rate` a second on average."""
    if process.clients:
        share = rate / sum(client.own_rate for client in process.clients)
        parts = [arrivals(client, client.own_rate * share, duration, rng) for client in process.clients]
        return np.sort(np.concatenate(parts))
    if process.bursts:
        return _bursts(process.bursts, rate / process.own_rate, duration, rng)
    time, intensity = _rate(process, duration, rng)
    passed = np.concatenate(([0.0], np.cumsum(np.diff(time) * (intensity[1:] + intensity[:-1]) / 2)))
    passed *= rate * duration / passed[-1]
    events, _ = renewal(process, float(passed[-1]), rng)
    instants = np.interp(events, passed, time)
    return instants[instants < duration]


def renewal(process: Process, end: float, rng: np.random.Generator, ahead: float | None = None) -> tuple[Floats, float]:
    """Events of a renewal process of mean gap 1 up to `end`, and how far beyond it the next one lies. The first is at
    `ahead`; without it the process is stationary."""
    instants = gaps(process, 1, rng, stationary=True) if ahead is None else np.array([ahead])
    while instants[-1] < end:
        more = gaps(process, int((end - instants[-1]) * 1.05) + 64, rng)
        instants = np.concatenate((instants, instants[-1] + np.cumsum(more)))
    inside = int(np.searchsorted(instants, end))
    return instants[:inside], float(instants[inside] - end)


def gaps(process: Process, count: int, rng: np.random.Generator, stationary: bool = False) -> Floats:
    """Gaps of mean 1. `stationary`: what is left of a gap at a random instant, which long gaps catch more often (a gap
    drawn by its length, and a random part of it); started otherwise, a bursty process opens with a burst."""
    kind, shape = process.gaps, process.shape
    part = rng.random(count) if stationary else 1.0
    if kind == "constant":
        return np.ones(count) * part
    if kind == "exponential":
        return rng.exponential(size=count)
    if kind == "gamma":
        return rng.gamma(shape + stationary, 1 / shape, count) * part
    if kind == "weibull":
        power = rng.gamma(1 + 1 / shape, size=count) if stationary else rng.exponential(size=count)
        return power ** (1 / shape) / math.gamma(1 + 1 / shape) * part
    raise InputError(f"unknown gaps {kind!r}", where="arrivals", remedy="constant, exponential, gamma or weibull")


def _rate(process: Process, duration: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The rate's path: (seconds, relative rates at them), lines in between."""
    wander, rhythm = process.wander, process.rhythm
    steps = [duration, *(part.tau / STEPS_PER_TAU for part in wander)]
    if rhythm:
        steps.append(rhythm.period / len(rhythm.relative) / 4)
    time = np.linspace(0.0, duration, math.ceil(duration / min(steps)) + 1)
    path = np.ones(len(time))
    if wander:
        path *= np.mean([_cir(part.variance, part.tau, time, rng) for part in wander], axis=0)
    if rhythm:
        relative = np.array([*rhythm.relative, rhythm.relative[0]], float)
        path *= np.interp(time % rhythm.period, np.linspace(0.0, rhythm.period, len(relative)), relative)
    return time, path


def _cir(variance: float, tau: float, time: Floats, rng: np.random.Generator) -> Floats:
    """A stationary CIR path by its exact transition, a scaled noncentral chi-square (Cox, Ingersoll, Ross 1985)."""
    decay = math.exp(-(time[1] - time[0]) / tau)
    scale, freedom = variance * (1 - decay) / 2, 2 / variance
    path = np.empty(len(time))
    path[0] = now = rng.gamma(1 / variance, variance)
    for step in range(1, len(time)):
        path[step] = now = scale * rng.noncentral_chisquare(freedom, now * decay / scale)
    return path


def _bursts(bursts: Bursts, faster: float, duration: float, rng: np.random.Generator) -> Floats:
    """On and off, beginning inside a silence; another rate than the workload's own runs the same pattern faster."""
    parts, now = [], -float(inverse(bursts.off_ms, rng.random(1))[0]) / 1e3 * rng.random()
    while now < duration * faster:
        now += float(inverse(bursts.off_ms, rng.random(1))[0]) / 1e3
        large, hurry = rng.standard_normal(), bursts.hurry
        size = max(1, round(float(inverse(bursts.size, phi(np.array([large])))[0])))
        slow = math.sqrt(1 - hurry * hurry) * rng.standard_normal() - hurry * large
        score = _alike(size - 1, slow, bursts.tempo, bursts.drift, rng)
        burst = now + np.concatenate(([0.0], np.cumsum(inverse(bursts.gap_us, phi(score)) / 1e6)))
        parts.append(burst)
        now = float(burst[-1])
    instants = np.concatenate(parts) / faster
    return instants[(instants >= 0) & (instants < duration)]


def _alike(count: int, slow: float, tempo: float, drift: float, rng: np.random.Generator) -> Floats:
    """Standard normal scores, correlated as the gaps of one burst are; `slow` is what they have in common."""
    own = rng.standard_normal(count) * math.sqrt(max(0.0, 1 - tempo - drift))
    score: Floats = own + math.sqrt(tempo) * slow
    if drift:
        path, fresh = rng.standard_normal(), rng.standard_normal(count) * math.sqrt(1 - DRIFT_DECAY**2)
        for position in range(count):
            path = DRIFT_DECAY * path + fresh[position]
            score[position] += math.sqrt(drift) * path
    return score


def pairs(count: int, rho: float, seed: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Uniform draws for prompts and outputs, tied by a Gaussian copula of correlation `rho`. Draw i doesn't depend on
    `count`: the same request has the same lengths at every rate."""
    first = np.random.default_rng((*seed, 1)).standard_normal(count)
    second = np.random.default_rng((*seed, 2)).standard_normal(count)
    return phi(first), phi(rho * first + math.sqrt(1 - rho * rho) * second)


def quantile(lengths: Lengths, uniform: Floats, least: int, most: int = LONGEST) -> Whole:
    """The distribution's quantiles at `uniform`, as tokens or ms, none below `least`. InputError beyond 0 to `most`."""
    rounded = np.rint(inverse(lengths, uniform))
    if not ((rounded >= 0) & (rounded <= most)).all():  # NaN neither
        raise InputError(f"expected lengths from 0 to {most}", where="workload", remedy="see docs/traces.md")
    return np.asarray(np.maximum(rounded.astype(np.int64), least))


def inverse(lengths: Lengths, uniform: Floats) -> Any:
    """The distribution's quantiles at `uniform`, not yet rounded."""
    if lengths.fixed is not None:
        return np.full(len(uniform), lengths.fixed)
    if lengths.quantiles is not None:
        p, q = np.array(lengths.quantiles).T
        if not (q >= 0).all():
            raise InputError("a quantile is below 0 or no number", where="workload", remedy="see docs/traces.md")
        return np.exp(np.interp(uniform, p, np.log(np.maximum(q, 0.5))))
    if lengths.mixture is not None:
        return np.minimum(_mixture(np.array(lengths.mixture), uniform), LONGEST if lengths.max is None else lengths.max)
    if lengths.values is not None:
        tokens, weight = np.array(sorted(lengths.values)).T
        return tokens[np.searchsorted(np.cumsum(weight) / weight.sum(), uniform).clip(max=len(tokens) - 1)]
    raise InputError("unknown length distribution", where="workload", remedy="fixed, quantiles, mixture or values")


def _mixture(parts: Floats, uniform: Floats) -> Any:
    """Inverse of the mixture's distribution function, read off a fine grid in log(tokens)."""
    weight, mu, sigma = parts.T
    grid = np.linspace((mu - 6 * sigma).min(), (mu + 6 * sigma).max(), 20001)
    below = (weight[:, None] * phi((grid - mu[:, None]) / sigma[:, None])).sum(axis=0) / weight.sum()
    return np.exp(np.interp(uniform, below, grid))


def phi(z: Floats) -> Any:
    """The normal distribution function, to 1e-7."""
    return np.interp(z, _Z, _PHI)
