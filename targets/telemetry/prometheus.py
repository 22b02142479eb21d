"""The Prometheus text format: samples by name, sums over a server's series, histograms' buckets. Pure."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

UNLIKELY = 1e15  # counts and seconds are below it, and not below 0

_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? +(\S+)(?: +-?\d+)?")
_LE = re.compile(r'(?:^|,)\s*le="([^"]*)"')
Samples = dict[str, list[tuple[str, float]]]  # by name: each series' labels as they stand, and its value


@dataclass(frozen=True)
class Histogram:
    """A histogram so far: the sum of what was observed, how often that was, and where it is known (upper bound,
    cumulative count) pairs without the last, infinite bound."""

    sum: float
    count: float
    buckets: tuple[tuple[float, float], ...] | None = None


def parse(text: str) -> Samples:
    """The samples of a text. Lines that are none, and values that no server can mean, are skipped."""
    samples: Samples = defaultdict(list)
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if 0 <= value < UNLIKELY:
            samples[match[1]].append((match[2] or "", value))
    return samples


def values(samples: Samples, name: str) -> list[float]:
    """A metric's values, one of each series."""
    return [value for _, value in samples.get(name, ())]


def histogram(samples: Samples, name: str, buckets: bool = False) -> Histogram | None:
    """The histogram of a name, the series of several engines added up; None where there is none."""
    if f"{name}_sum" not in samples or f"{name}_count" not in samples:
        return None
    pairs = _buckets(samples.get(f"{name}_bucket", [])) if buckets else None
    return Histogram(sum(values(samples, f"{name}_sum")), sum(values(samples, f"{name}_count")), pairs)


def _buckets(series: list[tuple[str, float]]) -> tuple[tuple[float, float], ...]:
    counts: dict[float, float] = defaultdict(float)
    for labels, value in series:
        bound = _bound(labels)
        if math.isfinite(bound):
            counts[bound] += value
    return tuple((bound, counts[bound]) for bound in sorted(counts))


def _bound(labels: str) -> float:
    """The bucket's upper bound; not a number where it has none that can be read."""
    match = _LE.search(labels)
    try:
        return float(match[1]) if match else math.nan
    except ValueError:
        return math.nan
