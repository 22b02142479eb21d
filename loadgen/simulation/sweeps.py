"""`phaseload simulate --sweep`: a grid of simulations on all cores, and the planning report over them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from reports.analysis import durations, quantiles
from reports.analysis.gates import Gate, parse, parse_goodput
from reports.analysis.quantiles import Values
from reports.analysis.samples import Sample, sample
from reports.analysis.throughput import costs
from reports.analysis.validity import Status
from reports.analysis.verdicts import exit_code, verdict
from targets.simulated import analysis
from targets.simulated.build import Endpoint, SimulatedTarget
from targets.simulated.engine.disaggregation import Disaggregated
from targets.simulated.virtual import simulate
from traces.errors import InputError
from traces.trace import NS_PER_S, Request

from .. import folders, pacing
from ..load import Load
from .virtual_run import STEP

LOADS = ("speedup", "request_rate")  # axes that change the load; all others are settings of the targets
COUNTS = ("pool", "tp", "max_batch", "chunk", "drafted", "local_below")
POINTS = 8
LARGEST = 20_000  # points of a grid
PHASES = ("queue", "prefill", "decode")  # of every simulated endpoint
UNSWEPT = {"itl", "longest_stall", "lateness", "connect"}  # metrics that points don't keep
OUTCOMES = {0: "met", 1: "missed", 3: "undecided"}  # by the exit code that the gates of a point alone would give

Value = float | str


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values, for one target."""

    number: int
    subject: SimulatedTarget
    values: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Sweep:
    """What all points share."""

    model: str
    load: Load
    objectives: Mapping[str, float]
    gates: Sequence[Gate]


# The requests of each load, in every worker: workers are forked after this is filled, so nothing is copied to them.
_REQUESTS: dict[tuple[tuple[str, float], ...], list[Request]] = {}


def axis(text: str) -> tuple[str, list[Value]]:
    """`KEY=A..B[:POINTS]` (evenly spaced by ratio; counts are rounded, each once) or `KEY=A,B,C`, numbers or words.

    Raises InputError."""
    key, equals, values = text.partition("=")
    key = key.strip()
    mistake = InputError(f"--sweep {text}", remedy="KEY=A..B, KEY=A..B:POINTS or KEY=A,B,C, as in speedup=0.5..8")
    if not (key and equals):
        raise mistake
    span = re.fullmatch(r"([^.,:]*(?:\.\d+)?)\.\.([^:]+)(?::(\d+))?", values)
    words = [value.strip() for value in values.split(",")]
    try:
        if not span:
            found = [float(word) for word in words]
        else:
            low, high, points = float(span[1]), float(span[2]), int(span[3] or POINTS)
            if not 0 < low < high or points < 2:
                raise mistake
            found = [float(f"{value:.4g}") for value in np.geomspace(low, high, points)]
            if key.rpartition(".")[2] in COUNTS:
                found = [float(value) for value in dict.fromkeys(map(round, found))]
    except ValueError:
        if key in LOADS or not all(words) or ".." in values:
            raise mistake from None
        return key, list(words)
    if not all(0 <= value < float("inf") for value in found):
        raise mistake
    return key, list(found)


def run(
    chosen: Sequence[SimulatedTarget],
    trace: str,
    load: Load,
    sweeps: Sequence[str],
    out: str | Path | None,
    *,
    name: str,
    model: str,
    goodput: Sequence[str],
    slo: Sequence[str] = (),
) -> int:
    """Simulates the grid and writes planning.json and planning.html; returns the exit code: with gates, 0 where some
    point meets all that concern it, else 3 where one can't be decided, else 1."""
    from rich.console import Console

    from reports.render import planning_page as report

    objectives, gates = parse_goodput(list(goodput)), [parse(text) for text in slo]
    _answerable(gates, objectives, [subject.name for subject in chosen])
    axes = dict(axis(text) for text in sweeps)
    points = list(_points(chosen, axes, model))
    if len(points) > LARGEST:
        raise InputError(f"{len(points):,} points", where="--sweep", remedy=f"at most {LARGEST:,}")
    for loads in {_loads(point.values) for point in points}:
        _REQUESTS[loads] = list(pacing.requests(trace, _at(load, dict(loads))))
    folder = folders.new_folder(name, out)
    rows = _simulated(points, Sweep(model, load, objectives, gates))
    base = _REQUESTS[min(_REQUESTS)]
    found = {
        "model": model,
        "trace": trace,
        "goodput": list(goodput),
        "slo": list(slo),
        "axes": axes,
        "points": rows,
        "targets": [asdict(analysis.hardware(subject, model, base)) for subject in chosen],
        "crossovers": [asdict(pair) for pair in analysis.crossovers(chosen, model, base)],
        "hybrids": [asdict(hybrid) for subject in chosen if (hybrid := analysis.hybrid(subject, model, base))],
    }
    (folder / "planning.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    page = report.write(found, folder / "planning.html")
    console = Console(soft_wrap=True)
    report.print_points(found, console)
    console.print(f"report: {page}", markup=False, highlight=False)
    outcomes = {row["slo"] for row in rows} - {None}
    return 0 if "met" in outcomes or not outcomes else 3 if "undecided" in outcomes else 1


def _answerable(gates: Sequence[Gate], objectives: Mapping[str, float], names: Sequence[str]) -> None:
    """Raises InputError for what a point can't tell: without all tokens' instants there are no gaps between them."""
    remedy = "leave --sweep out"
    for gate in gates:
        if gate.metric in UNSWEPT:
            raise InputError(f"a sweep doesn't keep {gate.metric}", where=gate.text, remedy=remedy)
        if gate.target not in ("", *names) or gate.step not in ("", STEP):
            raise InputError("no such target or step", where=gate.text, remedy=f"there are {', '.join(names)}")
    for metric in UNSWEPT & set(objectives):
        raise InputError(f"a sweep doesn't keep {metric}", where="--goodput", remedy=remedy)


def _points(chosen: Sequence[SimulatedTarget], axes: Mapping[str, Sequence[Value]], model: str) -> Iterator[Point]:
    """Every combination for each target, of the axes that it knows."""
    used = set()
    number = 0
    for subject in chosen:
        subject.build(model)
        own = [key for key, values in axes.items() if key in LOADS or _knows(subject, key, values, model)]
        used |= set(own)
        for values in product(*(axes[key] for key in own)):
            yield Point(number, subject, tuple(zip(own, values, strict=True)))
            number += 1
    if unused := set(axes) - used:
        raise InputError(f"no target has a setting {min(unused)}", where="--sweep")


def _knows(subject: SimulatedTarget, key: str, values: Sequence[Value], model: str) -> bool:
    try:
        for value in values:
            _set(subject, ((key, value),)).build(model)
    except InputError as error:
        if error.message == f"no such setting: {key}":
            return False
        raise
    # A link plays a part in compositions only.
    return not key.startswith("link.") or isinstance(subject.build(model).station, Disaggregated)


def _loads(values: Sequence[tuple[str, Value]]) -> tuple[tuple[str, float], ...]:
    return tuple((key, float(value)) for key, value in values if key in LOADS)


def _at(load: Load, values: Mapping[str, float]) -> Load:
    rate = values.get("request_rate", load.request_rate)
    return replace(load, speedup=values.get("speedup", load.speedup), request_rate=rate)


def _set(subject: SimulatedTarget, values: Sequence[tuple[str, Value]]) -> SimulatedTarget:
    own = {key: value if isinstance(value, str) else f"{value:.12g}" for key, value in values if key not in LOADS}
    return replace(subject, settings={**subject.settings, **own})


def _simulated(points: Sequence[Point], sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each point, in order; with a progress bar on a terminal."""
    from rich.progress import track

    gc.freeze()  # a collection in a worker would walk, and so copy, all the requests
    with multiprocessing.get_context("fork").Pool(min(len(os.sched_getaffinity(0)), len(points)), gc.disable) as pool:
        done = pool.imap_unordered(partial(_measure, sweep), points)
        rows = dict(track(done, "simulating", len(points), transient=True, disable=len(points) < 4))
    return [rows[point.number] for point in points]


def _measure(sweep: Sweep, point: Point) -> tuple[int, dict[str, Any]]:
    requests, load = _REQUESTS[_loads(point.values)], sweep.load
    endpoint = _set(point.subject, point.values).build(sweep.model, load.seed)
    frame = durations.of_exchanges(list(simulate(endpoint, requests)))
    frame["counted"] = frame["due"] >= load.warmup * NS_PER_S
    end = load.seconds * NS_PER_S if load.seconds else requests[-1].due
    answers = sample(point.subject.name, STEP, frame, (load.warmup * NS_PER_S, end), sweep.objectives)
    verdicts = [verdict(gate, answers) for gate in sweep.gates if gate.target in ("", answers.target)]
    offered = max((requests[-1].due - requests[0].due) / NS_PER_S, 1e-9)
    return point.number, {
        "target": point.subject.name,
        "values": dict(point.values),
        "rate": len(requests) / offered,
        "requests": answers.n,
        "failed": answers.failed,
        "goodput": (answers.n - answers.failed if answers.good is None else answers.good) / answers.n,
        "units": endpoint.units,
        **_figures(endpoint, answers),
        "slo": OUTCOMES[exit_code(verdicts, Status.VALID)] if verdicts else None,
        "gates": [decided.as_json() for decided in verdicts],
    }


def _figures(endpoint: Endpoint, answers: Sample) -> dict[str, Any]:
    """What one point measured, and cost."""
    counted, answered = answers.counted, answers.answered
    span = float(counted["done"].max() - counted["due"].min()) / NS_PER_S
    tokens = float(answered["output_count"].sum() / span)
    share = (
        (answers.good_tokens_per_s or 0.0) / answers.throughput.output_tokens_per_s if answers.good is not None else 1
    )
    cost = costs(endpoint.price, endpoint.watts, tokens, tokens * share) or {}
    return {
        **{metric: _quantiles(answers.values[metric]) for metric in ("ttft", "tpot", "e2e")},
        **{f"{phase}_mean": _mean(answered[f"server_{phase}"].dropna()) for phase in PHASES},
        "transfer_mean": _mean(answered["server_transfer"].fillna(0.0)),
        "tokens_per_s": tokens,
        "in_flight": float(answers.values["e2e"].sum() / span),
        "dollars_per_mtok": cost.get("per_million_tokens"),
        "dollars_per_good_mtok": cost.get("per_million_good_tokens"),
        "joules_per_token": cost.get("joules_per_token"),
    }


def _quantiles(values: Values) -> dict[str, float] | None:
    return {"p50": quantiles.at(values, 0.5), "p99": quantiles.at(values, 0.99)} if len(values) else None


def _mean(column: Any) -> float | None:
    return float(column.mean()) if len(column) else None
