"""Where the time went: each part of a request measured, reported by the server, or not reported; never guessed.

Means, because means of parts add up to the mean of the whole (quantiles don't), over answered, counted requests. What
the server reports for fewer than REPORTED of them counts as not reported. What lies between `sent` and the first token
and is not reported is "not attributed": network, queue and prefill together where the server reports nothing.

Two-leg exchanges are measured at the client: the prefill leg, the client's own hand-over, and the decode leg up to its
first token (KV transfer, queue and first step together). Where the protocol sends both legs at once there is no
hand-over, and of the decode leg only what comes after prefill counts. A prompt that went straight to decode spends
nothing on prefill's leg.

Beside it stands what the servers' own `/metrics` reported during the run: metrics.jsonl
(`targets.telemetry`) has a reading a second of each URL. Queue depth, running requests and KV use become a
timeline; the phase histograms, read before and after, give the server's mean of each phase over the whole run, warm-up
included, and the client's mean is taken over the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from targets import telemetry
from targets.telemetry import Reading
from traces.request import NS_PER_S

from .. import number_format
from ..store.run_folder import Run
from ..store.run_json import TargetFacts
from . import quantiles
from .quantiles import Values, finite

MEASURED, BY_SERVER, ABSENT, REST = "measured", "told by the server", "not reported", "the rest of TTFT"
TOGETHER = "none: both legs were sent at once"
STRAIGHT = "none: all went straight to decode"
REPORTED = 0.99
CLIENT = ("client wait", "connection")
BEFORE_FIRST = ("queue", "prefill", "KV transfer")  # server phases inside TTFT, in order
ALL = (*CLIENT, *BEFORE_FIRST, "hand-over", "decode leg to first token", "not attributed", "decode")
SERVER = ("server_queue", "server_prefill", "server_transfer", "server_decode", "server_ttft", "server_total")
GAUGES = {"running": "Running requests", "waiting": "Waiting requests", "kv_use": "KV cache in use"}
SHARED = ("ttft", "e2e")  # histograms of what the client measures too; the others' phases don't mean the same
Series = dict[str, tuple[Values, Values]]  # gauge -> seconds of the run, values


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the mean request's time (s; None where not reported), and who measured it (`standing`)."""

    phase: str
    standing: str
    mean: float | None = None
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class ServerFigure:
    """A duration that the server itself reported, of `n` answers."""

    n: int
    mean: float
    p50: float
    p99: float


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


def account(answered: pd.DataFrame) -> list[Part]:
    """One part after the other, in order of time; empty without an answered request."""
    if not len(answered):
        return []
    return [
        _part("client wait", answered["lateness"], MEASURED),
        _part("connection", answered["connect"].fillna(0) + answered["upload"].fillna(0), MEASURED),
        *(_two_legs(answered) if answered["decode_sent"].notna().any() else _one_leg(answered)),
        _part("decode", (answered["last_token"] - answered["first_token"]) / NS_PER_S, MEASURED),
    ]


def _one_leg(answered: pd.DataFrame) -> Iterator[Part]:
    left = answered["ttft"] - answered["upload"].fillna(0)
    for phase, column in zip(BEFORE_FIRST, ("server_queue", "server_prefill", "server_transfer"), strict=True):
        if answered[column].notna().mean() < REPORTED:
            yield Part(phase, ABSENT)
            continue
        left = left - answered[column].fillna(0)
        yield _part(phase, answered[column], BY_SERVER)
    # Two clocks and rounding can make the sum exceed TTFT by a little; a negative rest would be a guess too.
    yield _part("not attributed", left.clip(lower=0), REST)


def _two_legs(answered: pd.DataFrame) -> Iterator[Part]:
    legs = answered["prefill_sent"].notna()
    began = answered[["prefill_done", "decode_sent"]].max(axis=1)
    yield _leg("prefill", (answered["prefill_done"] - answered["prefill_sent"]) / NS_PER_S, legs)
    if (answered["decode_sent"] < answered["prefill_done"]).any():
        yield Part("hand-over", TOGETHER)
    else:
        yield _leg("hand-over", (began - answered["prefill_done"]) / NS_PER_S, legs)
    # With both legs at once, prefill's answer may end after decode's first token.
    left = ((answered["first_token"] - began) / NS_PER_S).clip(lower=0)
    yield _part("decode leg to first token", left, MEASURED)


def _leg(phase: str, took: pd.Series[float], legs: pd.Series[bool]) -> Part:
    """Prompts that went straight to decode spend nothing here, and are in the mean, so that the parts add up."""
    ran, straight = int(legs.sum()), int((~legs).sum())
    if not ran:
        return Part(phase, STRAIGHT)
    mean = number_format.ms(float(took[legs].mean()), unit=True)
    others = f"; {straight:,} of {len(legs):,} went straight to decode, the others' mean is {mean}" if straight else ""
    return _part(phase, took.where(legs, 0), MEASURED + others)


def _part(phase: str, column: pd.Series[float], standing: str) -> Part:
    figure = _figure(column)
    return Part(phase, standing, figure.mean, figure.p50, figure.p99) if figure else Part(phase, standing)


def _figure(column: pd.Series[float]) -> ServerFigure | None:
    """None where no request has a value."""
    values: Values = np.sort(column.dropna().to_numpy(np.float64))
    if not len(values):
        return None
    return ServerFigure(len(values), float(values.mean()), quantiles.at(values, 0.5), quantiles.at(values, 0.99))


def server_figures(answered: pd.DataFrame) -> dict[str, ServerFigure | None]:
    difference = answered["ttft"] - answered["server_ttft"]
    return {name: _figure(answered[name]) for name in SERVER} | {"ttft_difference": _figure(difference)}


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
    """By URL, the gauges of GAUGES that it has."""
    of_urls: dict[str, Series] = {}
    for url in dict.fromkeys(reading.url for reading in readings):
        for name in GAUGES:
            points = [(r.at / NS_PER_S, r.gauges[name]) for r in readings if r.url == url and name in r.gauges]
            if points:
                at, values = np.array(points).T
                of_urls.setdefault(url, {})[name] = (at, values)
    return of_urls


def phase_means(run: Run, readings: Sequence[Reading]) -> list[PhaseMean]:
    means = []
    for url, phases in telemetry.means(readings).items():
        target = owner(run.facts.targets, url)
        rows = run.rows[run.rows["target"] == target]
        for phase, (mean, count) in phases.items():
            client = finite(float(rows[phase].mean())) if phase in SHARED and len(rows) else None
            difference = None if client is None else client - mean
            means.append(PhaseMean(url, target, phase, mean, count, client, difference))
    return means


def round_trips(run: Run, readings: Sequence[Reading]) -> list[RoundTrip]:
    whens, of_urls = ("before", "during", "after"), telemetry.round_trips(readings)
    return [RoundTrip(url, owner(run.facts.targets, url), *map(of_urls[url].get, whens)) for url in of_urls]


def failures(readings: Sequence[Reading]) -> list[tuple[str, int, str]]:
    """(URL, how many of its readings failed, the first one's error)."""
    failed = [reading for reading in readings if reading.error]
    first = {reading.url: reading.error for reading in reversed(failed)}
    return [(url, count, first[url]) for url, count in Counter(reading.url for reading in failed).items()]
