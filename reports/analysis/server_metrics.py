"""What the servers' own `/metrics` reported during the run, beside what the client measured.

metrics.jsonl (`targets.telemetry.readings`) has a reading a second of each URL. Queue depth, running requests and KV
use become a timeline; the phase histograms, read before and after, give the server's mean of each phase over the whole
run, warm-up included, and the client's mean is taken over the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.telemetry import readings as telemetry
from targets.telemetry.readings import Reading
from traces.request import NS_PER_S

from ..store.run_folder import Run
from ..store.run_json import TargetFacts
from .quantiles import Values, finite

SHOWN = {"running": "Running requests", "waiting": "Waiting requests", "kv_use": "KV cache in use"}
CLIENT = {"ttft": "ttft", "e2e": "e2e"}  # phases that the client measures too; elsewhere the two don't mean the same
Series = dict[str, tuple[Values, Values]]  # gauge -> seconds of the run, values


@dataclass(frozen=True)
class PhaseMean:
    """A phase as a server's histogram has it: its mean (s) over `n` requests, the client's mean, and the difference."""

    url: str
    target: str
    phase: str
    mean: float
    n: int
    client: float | None
    difference: float | None


@dataclass(frozen=True)
class RoundTrip:
    """The median time (s) of a TCP connect to a URL that is not on this machine, before, during and after the load."""

    url: str
    target: str
    before: float | None
    during: float | None
    after: float | None


def readings(folder: Path) -> list[Reading]:
    """Empty where no server's metrics were read."""
    path = folder / telemetry.FILE
    return telemetry.read(path) if path.exists() else []


def owner(targets: Iterable[TargetFacts], url: str) -> str:
    """The target that a metrics URL belongs to; empty where none claims it."""
    for target in targets:
        bases = (target.url, *target.prefill, *target.decode)
        ours = any(f"{url}/".startswith(f"{base.rstrip('/')}/") for base in bases if base)
        if ours or url in target.metrics:
            return target.name
    return ""


def series(readings: Sequence[Reading]) -> dict[str, Series]:
    """By URL, the gauges of SHOWN that it has."""
    of_urls: dict[str, Series] = {}
    for url in dict.fromkeys(reading.url for reading in readings):
        for name in SHOWN:
            points = [(r.at / NS_PER_S, r.gauges[name]) for r in readings if r.url == url and name in r.gauges]
            if points:
                at, values = np.array(points).T
                of_urls.setdefault(url, {})[name] = (at, values)
    return of_urls


def phase_means(run: Run, readings: Sequence[Reading]) -> list[PhaseMean]:
    """One for each URL and each phase that its histograms have."""
    means = []
    for url, phases in telemetry.means(readings).items():
        target = owner(run.facts.targets, url)
        rows = run.rows[run.rows["target"] == target]
        for phase, (mean, count) in phases.items():
            client = finite(float(rows[CLIENT[phase]].mean())) if phase in CLIENT and len(rows) else None
            difference = None if client is None else client - mean
            means.append(PhaseMean(url, target, phase, mean, count, client, difference))
    return means


def round_trips(run: Run, readings: Sequence[Reading]) -> list[RoundTrip]:
    """One for each URL to which round trips were measured."""
    targets = run.facts.targets
    return [
        RoundTrip(url, owner(targets, url), *(times.get(when) for when in ("before", "during", "after")))
        for url, times in telemetry.round_trips(readings).items()
    ]


def failures(readings: Sequence[Reading]) -> list[tuple[str, int, str]]:
    """(URL, how many of its readings failed, the first one's error)."""
    failed = [reading for reading in readings if reading.error]
    first = {reading.url: reading.error for reading in reversed(failed)}
    return [(url, count, first[url]) for url, count in Counter(reading.url for reading in failed).items()]
