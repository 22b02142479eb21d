"""Distributions of lengths: from uniform draws to whole tokens, so that any two can be tied by a copula.

A spec is one of
    {"fixed": 1024}
    {"quantiles": [[p, tokens], ...]}                  p from 0 to 1, linear in log(tokens) between
    {"mixture": [[weight, mu, sigma], ...], "max": n}  lognormals, `max` optional
    {"values": [[tokens, weight], ...]}                empirical
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST = 2**31 - 1  # tokens; as a trace's columns hold them
MOST_MS = 2**42  # whose nanoseconds are an int64

_Z = np.linspace(-8.5, 8.5, 8501)
_PHI = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in _Z])


def pairs(count: int, rho: float, seed: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Uniform draws for prompts and outputs, tied by a Gaussian copula of correlation `rho`. Draw i doesn't depend on
    `count`: the same request has the same lengths at every rate."""
    first = np.random.default_rng((*seed, 1)).standard_normal(count)
    second = np.random.default_rng((*seed, 2)).standard_normal(count)
    return phi(first), phi(rho * first + math.sqrt(1 - rho * rho) * second)


def quantile(spec: Mapping[str, Any], uniform: Floats, least: int, most: int = MOST) -> Whole:
    """The distribution's quantiles at `uniform`, as tokens or ms, none below `least`. InputError beyond 0 to `most`."""
    found = np.rint(inverse(spec, uniform))
    if not ((found >= 0) & (found <= most)).all():  # NaN neither
        raise InputError(f"expected lengths from 0 to {most}", where="workload", remedy="see docs/traces.md")
    tokens: Whole = np.maximum(found.astype(np.int64), least)
    return tokens


def inverse(spec: Mapping[str, Any], uniform: Floats) -> Any:
    """The distribution's quantiles at `uniform`, not yet rounded."""
    if "fixed" in spec:
        return np.full(len(uniform), float(spec["fixed"]))
    if "quantiles" in spec:
        p, q = np.array(spec["quantiles"], float).T
        if not (q >= 0).all():
            raise InputError("a quantile is below 0 or no number", where="workload", remedy="see docs/traces.md")
        return np.exp(np.interp(uniform, p, np.log(np.maximum(q, 0.5))))
    if "mixture" in spec:
        return np.minimum(_mixture(np.array(spec["mixture"], float), uniform), float(spec.get("max", MOST)))
    if "values" in spec:
        tokens, weight = np.array(sorted(spec["values"]), float).T
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
