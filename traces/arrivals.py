"""Arrival processes: when requests come. Pure functions of a spec (a workload's `arrivals`) and a random generator.

Theory of operation. Real services show burstiness on two scales, and one mechanism for each:
- `gaps`: the gaps between neighbours, drawn in *operational time* with mean 1: constant, exponential (Poisson),
  gamma or weibull with a `shape` (below 1: burstier than Poisson; CV of gamma = shape ** -0.5).
- `wander` and `daily`: the rate itself moves: rate(t) = rate * Z(t) * day(t). Z is a mean of CIR diffusions (a Cox
  process): stationary Gamma with mean 1 and `variance` v, autocovariance v * exp(-|dt| / tau), so that counts over
  w seconds have variance/mean = 1 + 2 rate v tau (1 - (tau / w)(1 - exp(-w / tau))). `daily` holds relative rates
  at even steps of a day, joined by lines. Instants are operational time carried through the inverse of the
  integrated rate. A renewal process alone loses the slow scale, which is what fills queues.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError

Floats = npt.NDArray[np.float64]
DAY = 86400.0
STEPS_PER_TAU = 64  # of a wander's path; between steps it is a line


def arrivals(spec: Mapping[str, Any], rate: float, duration: float, rng: np.random.Generator) -> Floats:
    """Ascending instants in [0, duration), seconds, at `rate` a second on average."""
    time, intensity = _rate(spec, rate, duration, rng)
    passed = np.concatenate(([0.0], np.cumsum(np.diff(time) * (intensity[1:] + intensity[:-1]) / 2)))
    instants = np.interp(_operational(spec, float(passed[-1]), rng), passed, time)
    return instants[instants < duration]


def _operational(spec: Mapping[str, Any], end: float, rng: np.random.Generator) -> Floats:
    """A stationary renewal process of mean gap 1 up to `end`."""
    instants = gaps(spec, 1, rng, stationary=True)
    while instants[-1] < end:
        more = gaps(spec, int((end - instants[-1]) * 1.05) + 64, rng)
        instants = np.concatenate((instants, instants[-1] + np.cumsum(more)))
    return instants[: np.searchsorted(instants, end)]


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


def _rate(spec: Mapping[str, Any], rate: float, duration: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The rate's path: (seconds, requests a second at them), lines in between."""
    wander, daily = spec.get("wander", ()), spec.get("daily", ())
    step = min([duration, *(one["tau"] / STEPS_PER_TAU for one in wander), *([DAY / len(daily) / 4] if daily else [])])
    time = np.linspace(0.0, duration, math.ceil(duration / step) + 1)
    path = np.full(len(time), float(rate))
    if wander:
        path *= np.mean([_cir(one["variance"], one["tau"], time, rng) for one in wander], axis=0)
    if daily:
        day = np.array([*daily, daily[0]], float)
        path *= np.interp(time % DAY, np.linspace(0.0, DAY, len(day)), day) / np.mean(daily)
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
