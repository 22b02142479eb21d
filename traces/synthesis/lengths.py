"""Distributions of lengths: from uniform draws to whole tokens, so that any two can be tied by a copula.

In a workload's JSON a distribution is one of
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

from ..errors import InputError
from ..trace import Floats, Whole
from ..typed_json import LEFT_OUT

MOST = 2**31 - 1  # tokens; as a trace's columns hold them
MOST_MS = 2**42  # whose nanoseconds are an int64

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


def pairs(count: int, rho: float, seed: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Uniform draws for prompts and outputs, tied by a Gaussian copula of correlation `rho`. Draw i doesn't depend on
    `count`: the same request has the same lengths at every rate."""
    first = np.random.default_rng((*seed, 1)).standard_normal(count)
    second = np.random.default_rng((*seed, 2)).standard_normal(count)
    return phi(first), phi(rho * first + math.sqrt(1 - rho * rho) * second)


def quantile(lengths: Lengths, uniform: Floats, least: int, most: int = MOST) -> Whole:
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
        return np.minimum(_mixture(np.array(lengths.mixture), uniform), MOST if lengths.max is None else lengths.max)
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
