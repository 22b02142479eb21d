"""Arrival processes: when requests come. Pure functions of a spec (a workload's `arrivals`) and a random generator.

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
- `clients`: a list of specs with a `rate` each, superposed. A few bursty clients carry a service's bursts.

The rate asked for is the mean over the trace: a random path is scaled to it, so that 60 s at 10/s are about 600
requests wherever the path happens to be. Instants are operational time carried through the inverse of the
integrated rate. A renewal process alone loses the slow scales, which are what fills queues.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .lengths import inverse, phi

Floats = npt.NDArray[np.float64]
STEPS_PER_TAU = 64  # of a wander's path; between steps it is a line
DRIFT_DECAY = 0.95  # from one gap of a burst to the next


def arrivals(spec: Mapping[str, Any], rate: float, duration: float, rng: np.random.Generator) -> Floats:
    """Ascending instants in [0, duration), seconds, at `rate` a second on average."""
    if "clients" in spec:
        return _clients(spec["clients"], rate, duration, rng)
    if "bursts" in spec:
        return _bursts(spec, rate, duration, rng)
    time, intensity = _rate(spec, duration, rng)
    passed = np.concatenate(([0.0], np.cumsum(np.diff(time) * (intensity[1:] + intensity[:-1]) / 2)))
    passed *= rate * duration / passed[-1]
    events, _ = renewal(spec, float(passed[-1]), rng)
    instants = np.interp(events, passed, time)
    return instants[instants < duration]


def renewal(
    spec: Mapping[str, Any], end: float, rng: np.random.Generator, ahead: float | None = None
) -> tuple[Floats, float]:
    """Events of a renewal process of mean gap 1 up to `end`, and how far beyond it the next one lies. The first is at
    `ahead`; without it the process is stationary."""
    instants = gaps(spec, 1, rng, stationary=True) if ahead is None else np.array([ahead])
    while instants[-1] < end:
        more = gaps(spec, int((end - instants[-1]) * 1.05) + 64, rng)
        instants = np.concatenate((instants, instants[-1] + np.cumsum(more)))
    inside = int(np.searchsorted(instants, end))
    return instants[:inside], float(instants[inside] - end)


def gaps(spec: Mapping[str, Any], count: int, rng: np.random.Generator, stationary: bool = False) -> Floats:
    """Gaps of mean 1. `stationary`: what is left of a gap at a random instant, which long gaps catch more often (a gap
    drawn in proportion to its length, and a random part of it); started otherwise, a bursty process opens with a burst.
    """
    kind, shape = spec.get("gaps", "exponential"), float(spec.get("shape", 1.0))
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


def _rate(spec: Mapping[str, Any], duration: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The rate's path: (seconds, relative rates at them), lines in between."""
    wander, rhythm = spec.get("wander", ()), spec.get("rhythm")
    steps = [duration, *(one["tau"] / STEPS_PER_TAU for one in wander)]
    if rhythm:
        steps.append(rhythm["period"] / len(rhythm["relative"]) / 4)
    time = np.linspace(0.0, duration, math.ceil(duration / min(steps)) + 1)
    path = np.ones(len(time))
    if wander:
        path *= np.mean([_cir(one["variance"], one["tau"], time, rng) for one in wander], axis=0)
    if rhythm:
        relative = np.array([*rhythm["relative"], rhythm["relative"][0]], float)
        path *= np.interp(time % rhythm["period"], np.linspace(0.0, rhythm["period"], len(relative)), relative)
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


def _bursts(spec: Mapping[str, Any], rate: float, duration: float, rng: np.random.Generator) -> Floats:
    """On and off, beginning inside a silence; another rate than the workload's own runs the same pattern faster."""
    bursts, faster = spec["bursts"], rate / float(spec["rate"])
    parts, now = [], -float(_drawn(bursts["off_ms"], rng)[0]) / 1e3 * rng.random()
    while now < duration * faster:
        now += float(_drawn(bursts["off_ms"], rng)[0]) / 1e3
        large, hurry = rng.standard_normal(), float(bursts.get("hurry", 0.0))
        size = max(1, round(float(inverse(bursts["size"], phi(np.array([large])))[0])))
        slow = math.sqrt(1 - hurry * hurry) * rng.standard_normal() - hurry * large
        score = _alike(size - 1, slow, float(bursts.get("tempo", 0.0)), float(bursts.get("drift", 0.0)), rng)
        burst = now + np.concatenate(([0.0], np.cumsum(inverse(bursts["gap_us"], phi(score)) / 1e6)))
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


def _drawn(spec: Mapping[str, Any], rng: np.random.Generator) -> Floats:
    drawn: Floats = inverse(spec, rng.random(1))
    return drawn


def _clients(clients: list[Mapping[str, Any]], rate: float, duration: float, rng: np.random.Generator) -> Floats:
    share = rate / sum(float(client["rate"]) for client in clients)
    parts = [arrivals(client, float(client["rate"]) * share, duration, rng) for client in clients]
    return np.sort(np.concatenate(parts))
