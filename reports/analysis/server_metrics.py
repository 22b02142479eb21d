"""What the servers' own `/metrics` said during the run, beside what the client measured.

metrics.jsonl (written by `targets.telemetry.scraper`) has a reading a second of each URL. Queue depth, running requests and KV
use become a timeline; the phase histograms, read before and after, give the server's mean of each phase over the whole
run, warm-up included, and the client's mean is taken over the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from targets.telemetry import scraper

from ..store.run_folder import Run
from ..store.run_json import TargetFacts
from .quantiles import Values, finite

SHOWN = {"running": "Running requests", "waiting": "Waiting requests", "kv_use": "KV cache in use"}
CLIENT = {"ttft": "ttft", "e2e": "e2e"}  # phases that the client measures too; elsewhere the two don't mean the same
Series = dict[str, tuple[Values, Values]]  # gauge -> seconds of the run, values


def readings(folder: Path) -> list[dict[str, Any]]:
    """Empty where no server's metrics were read."""
    path = folder / scraper.FILE
    return scraper.read(path) if path.exists() else []


def owner(targets: Iterable[TargetFacts], url: str) -> str:
    """The target that a metrics URL belongs to; empty where none claims it."""
    for target in targets:
        bases = (target.url, *target.prefill, *target.decode)
        ours = any(f"{url}/".startswith(f"{base.rstrip('/')}/") for base in bases if base)
        if ours or url in target.metrics:
            return target.name
    return ""


def series(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """By URL, the gauges of SHOWN that it has."""
    found: dict[str, Series] = {}
    for url in dict.fromkeys(str(row["url"]) for row in rows):
        mine = [row for row in rows if row["url"] == url]
        for name in SHOWN:
            points = [(row["at"] * 1e-9, float(row[name])) for row in mine if name in row]
            if points:
                at, values = np.array(points).T
                found.setdefault(url, {})[name] = (at, values)
    return found


def account(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a URL and phase: the server's mean (s) and count, the client's mean of the same, and the difference."""
    targets = run.facts.targets
    found = []
    for url, phases in scraper.means(dict(row) for row in rows).items():
        target = owner(targets, url)
        mine = run.rows[run.rows["target"] == target]
        for phase, (mean, count) in phases.items():
            ours = finite(float(mine[CLIENT[phase]].mean())) if phase in CLIENT and len(mine) else None
            row = {"url": url, "target": target, "phase": phase, "mean": mean, "n": count, "client": ours}
            found.append(row | {"difference": None if ours is None else ours - mean})
    return found


def round_trips(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a URL that is not on this machine: median time of a TCP connect (s) before, during and after the load."""
    targets = run.facts.targets
    found = scraper.round_trips(dict(row) for row in rows)
    return [
        {"url": url, "target": owner(targets, url), **{when: times.get(when) for when in ("before", "during", "after")}}
        for url, times in found.items()
    ]


def problems(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, str]]:
    """(url, failed readings, the first failure's words)."""
    failed: dict[str, list[str]] = {}
    for row in rows:
        if "error" in row:
            failed.setdefault(str(row["url"]), []).append(str(row["error"]))
    return [(url, len(words), words[0]) for url, words in failed.items()]
