"""metrics.jsonl of a run's folder: a line for each reading of a URL, written by scraper.py. Pure, but for `read`.

    {"at": 1000012345, "url": "...", "when": "during", "running": 12, "waiting": 3, "kv_use": 0.41,
     "ttft": [sum of seconds, count], ...}

and for each target that is not on this machine the network's round trip, as long as a TCP connect takes:

    {"at": 1000012345, "url": "https://api.groq.com", "when": "during", "round_trip": 0.0123}

`at` is nanoseconds from the run's start. A name that a server doesn't have is absent; a reading that failed has
`error`. `before` and `after` also have the histograms' buckets ("ttft_buckets": [[upper bound, cumulative count],
...]), so that quantiles of the run alone can be had.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from traces.errors import InputError

from .prometheus import GAUGES, HISTOGRAMS, Histogram, gauges, histograms, parse

FILE = "metrics.jsonl"
BEFORE, DURING, AFTER = "before", "during", "after"  # the load


@dataclass(frozen=True)
class Reading:
    """What one URL gave: gauges and histograms by our names, or a round trip in seconds, or an error."""

    at: int
    url: str
    when: str
    gauges: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    round_trip: float | None = None
    error: str = ""

    @classmethod
    def of_text(cls, at: int, url: str, when: str, text: str) -> Reading:
        """The reading of a server's whole answer."""
        samples = parse(text)
        return cls(at, url, when, gauges(samples), histograms(samples, buckets=when != DURING))

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"at": self.at, "url": self.url, "when": self.when, **self.gauges}
        for name, histogram in self.histograms.items():
            row[name] = [histogram.sum, histogram.count]
            if histogram.buckets is not None:
                row[f"{name}_buckets"] = histogram.buckets
        if self.round_trip is not None:
            row["round_trip"] = self.round_trip
        return row | {"error": self.error} if self.error else row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reading:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        present = {name: _histogram(row, name) for name in HISTOGRAMS if name in row}
        gauges = {name: float(row[name]) for name in GAUGES if name in row}
        error, round_trip = row.get("error", ""), row.get("round_trip")
        return cls(int(row["at"]), row["url"], row["when"], gauges, present, round_trip, error)


def _histogram(row: Mapping[str, Any], name: str) -> Histogram:
    total, count = row[name]
    pairs = row.get(f"{name}_buckets")
    return Histogram(total, count, None if pairs is None else tuple((bound, within) for bound, within in pairs))


def read(path: Path) -> list[Reading]:
    """The readings of a file. A line that a kill cut short is left out. Raises InputError."""
    readings = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            readings.append(Reading.from_json(row))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a reading: {error!r}", where=str(path), line=number) from None
    return readings


def means(readings: Iterable[Reading]) -> dict[str, dict[str, tuple[float, int]]]:
    """By URL and phase: mean seconds and count of what happened between the readings before and after the load."""
    ends: dict[str, dict[str, Reading]] = defaultdict(dict)
    for reading in readings:
        if reading.when != DURING and not reading.error:
            ends[reading.url][reading.when] = reading
    return {url: dict(_means(both[BEFORE], both[AFTER])) for url, both in ends.items() if len(both) == 2}


def _means(before: Reading, after: Reading) -> Iterator[tuple[str, tuple[float, int]]]:
    for name, end in after.histograms.items():
        start = before.histograms.get(name, Histogram(0.0, 0.0))
        total, count = end.sum - start.sum, round(end.count - start.count)
        if count > 0 and total >= 0:
            yield name, (total / count, count)


def round_trips(readings: Iterable[Reading]) -> dict[str, dict[str, float]]:
    """By URL: the median round trip in seconds before, during and after the load."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for reading in readings:
        if reading.round_trip is not None:
            times[reading.url][reading.when].append(reading.round_trip)
    return {url: {when: median(each) for when, each in of_url.items()} for url, of_url in times.items()}
