"""What the rounds of a series send: each round the same loads on other requests.

Theory of operation. A verdict is about an endpoint under a load, not about one sample of requests, so each round takes
another slice of the trace: the next stretch of time of a recorded one, another seed of a bundled workload. A round's
load steps share its slice, and every target gets all of it, so that targets are compared request by request. A step of
`factor` 0.5 sends half of the slice's sessions, one of 2 two slices at once (`transforms.superpose`); bursts and think
times are the trace's own. So a round of the factors 0.5, 1, 2 takes two slices. The other way, to compress time by the
factor, bursts and think times with it, takes a slice that is longer by the largest factor. Where a load doesn't have
the trace's own instants (a rate, a number in flight), the factor multiplies the rate or the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path

import numpy as np

from traces import transforms
from traces.errors import InputError
from traces.reading import is_workload
from traces.trace import NS_PER_S, Trace

from .options import Load
from .plan import LoadStep

DURATION = 600.0  # seconds of a step's window, where nothing else is asked for
SLACK = 0.01  # of a slice: a recorded trace ends with its last request, a little before the time that it covers


@dataclass(frozen=True)
class Ladder:
    """Load steps: the base load times each factor, in this order. `speedup`: time is compressed by the factor; else
    sessions are left out or added. `step_s`: the window of all steps but the base, in seconds. Raises InputError."""

    factors: Sequence[float] = (1.0,)
    speedup: bool = False
    step_s: float | None = None

    def __post_init__(self) -> None:
        where = "--steps" if self.speedup else "--load"
        if not self.factors or any(not 0 < factor < inf for factor in self.factors):
            raise InputError(f"expected positive factors such as 1,2,4, got {list(self.factors)}", where=where)
        if len({step_name(factor) for factor in self.factors}) < len(self.factors):
            raise InputError(f"a factor comes twice in {list(self.factors)}", where=where)

    def load(self, base: Load, factor: float) -> Load:
        """The load of one step."""
        if factor == 1:
            return base
        load = base if self.step_s is None else replace(base, duration=self.step_s)
        if self.speedup:
            load = replace(load, warmup=load.warmup if load.warmup == "auto" else 0.0)
        if load.concurrency is not None:
            return replace(load, concurrency=max(1, round(load.concurrency * factor)))
        if load.request_rate is not None:
            return replace(load, request_rate=load.request_rate * factor)
        return replace(load, speedup=load.speedup * factor) if self.speedup else load

    def multiplies_sessions(self, load: Load) -> bool:
        return load.timed and not self.speedup


def windowed(load: Load, seconds: float | None) -> Load:
    """The load with a window of so many seconds, if any are named. Raises InputError."""
    if seconds is None:
        return load
    if load.duration is not None:
        raise InputError("can't be combined with --duration", where="--round-duration", remedy="give one of them")
    return replace(load, duration=seconds)


def step_name(factor: float) -> str:
    return "base" if factor == 1 else f"{factor:g}x"


def seed_of(seed: int, number: int, layer: int = 0) -> int:
    """The seed of a round (from 1) and one of its slices: the first is the user's own, the others are far from those of
    any other seed."""
    if (number, layer) == (1, 0):
        return seed
    return int(np.random.SeedSequence((seed, number, layer)).generate_state(1)[0])


def steps_of(trace: Trace | str | Path, load: Load, ladder: Ladder) -> list[LoadStep]:
    """The load steps of a run alone, on the trace as it is. Raises InputError."""
    if ladder.multiplies_sessions(load) and any(factor != 1 for factor in ladder.factors):
        return rounds_of(trace, load, ladder, 1)[0]
    loads = [(factor, ladder.load(load, factor)) for factor in ladder.factors]
    return [LoadStep(step_name(factor), each, each.requests(trace), factor) for factor, each in loads]


def rounds_of(trace: Trace | str | Path, load: Load, ladder: Ladder, count: int) -> list[list[LoadStep]]:
    """The load steps of each of `count` rounds; a step's window is as long as the load's duration, or DURATION. Raises
    InputError where the trace is too short, with what would fit."""
    if count < 1:
        raise InputError(f"must be at least 1, not {count}", where="--rounds")
    if load.duration is None:
        load = replace(load, duration=DURATION)
    slices, rounds = _slices(trace, load, ladder, count), []
    for number, each in enumerate(slices, 1):
        base = replace(load, seed=seed_of(load.seed, number))
        rounds.append([_step(each, base, ladder, factor) for factor in ladder.factors])
    return rounds


def _step(slices: Sequence[Trace], base: Load, ladder: Ladder, factor: float) -> LoadStep:
    load = ladder.load(base, factor)
    if not ladder.multiplies_sessions(load):
        return LoadStep(step_name(factor), load, load.requests(slices[0]), factor)
    requests = load.requests(transforms.superpose(slices, factor, load.seed))
    return LoadStep(step_name(factor), load, requests, factor, sessions=factor)


def _slices(trace: Trace | str | Path, load: Load, ladder: Ladder, count: int) -> list[list[Trace]]:
    """For each round the slices from which its steps are made."""
    most = max(ladder.factors)
    layers = ceil(most) if ladder.multiplies_sessions(load) else 1
    loads = [ladder.load(load, factor) for factor in ladder.factors]
    length = max((each.seconds or 0) * each.speedup for each in loads)  # of a slice, in seconds of the trace
    if not isinstance(trace, Trace) and is_workload(str(trace)):
        seeds = [[seed_of(load.seed, number, layer) for layer in range(layers)] for number in range(1, count + 1)]
        return [[drawn(str(trace), replace(load, seed=seed), length, most) for seed in each] for each in seeds]
    until = count * layers * length if load.timed else None
    recorded = trace if isinstance(trace, Trace) else load.opened(str(trace), until)
    if load.timed:
        return _stretches(recorded, length, count, layers, load)
    return [[part] for part in _parts(recorded, count, load, most)]


def drawn(name: str, load: Load, length: float, most: float) -> Trace:
    """A slice of a workload: as long as its instants are wanted, or with as many requests as the highest rate needs."""
    if load.timed:
        return load.opened(name, length)
    trace = load.opened(name)
    needed = 0 if load.request_rate in (None, inf) else _needed(load, most)
    if len(trace) < needed:
        trace = load.opened(name, 1.1 * trace.span / NS_PER_S * needed / len(trace))
    return trace


def _needed(load: Load, most: float) -> int:
    """Requests that a load paced by its rate sends at its highest multiple."""
    return ceil((load.request_rate or 0) * most * (load.seconds or 0))


def _stretches(trace: Trace, length: float, count: int, layers: int, load: Load) -> list[list[Trace]]:
    """Stretches of the trace's own time, one after the other."""
    name, whole = trace.source or trace.name, count * layers * length
    span = (trace.span + trace.span / max(1, len(trace) - 1)) / NS_PER_S  # a mean gap follows the last request
    if span < whole - SLACK * length:
        fitting, longest = int((span + SLACK * length) / (layers * length)), span / (count * layers)
        times = f" at up to {layers} times the sessions" if layers > 1 else ""
        window = load.duration_in(longest / length * (load.seconds or 0))
        remedy = [_fitting(fitting)] if fitting else []
        remedy += [f"{count} of {int(window)} s (--round-duration) do"] if window >= 1 else []
        raise InputError(
            f"its {span:,.0f} s are too short: {count} rounds of {length:,.0f} s{times} take {whole:,.0f} s",
            where=name, remedy="; ".join(remedy) or "a longer trace, or fewer rounds",
        )  # fmt: skip
    parts = [transforms.clip(trace, number * length, (number + 1) * length) for number in range(count * layers)]
    for number, part in enumerate(parts):
        if not len(part):
            raise InputError(f"no request from second {number * length:g} to {(number + 1) * length:g}", where=name)
    return [parts[number * layers : (number + 1) * layers] for number in range(count)]


def _parts(trace: Trace, count: int, load: Load, most: float) -> list[Trace]:
    """Equal numbers of requests, for loads that give them instants of their own."""
    rows, needed = len(trace) // count, 1 if load.request_rate in (None, inf) else _needed(load, most)
    if rows < needed:
        remedy = _fitting(len(trace) // needed) if len(trace) >= needed else "a longer trace, or a lower rate"
        problem = f"its {len(trace):,} requests are too few: {count} rounds take {count * needed:,}"
        raise InputError(problem, where=trace.source or trace.name, remedy=remedy)
    return [transforms.limit(trace, rows, skip=number * rows) for number in range(count)]


def _fitting(rounds: int) -> str:
    return "1 round of this length fits" if rounds == 1 else f"{rounds} rounds of this length fit"
