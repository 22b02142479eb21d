"""`phaseload simulate --sweep`: a grid of simulations on all cores, and the planning report over them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from reports.gates import LATENCIES, Gate, Verdict, decide, exit_code, parse, parse_goodput
from targets.exchange import NANO, Exchange
from targets.simulated import analysis, capacity
from targets.simulated.disaggregation import Disaggregated
from targets.simulated.pipeline import Racks
from targets.simulated.pool import Pool
from targets.simulated.virtual import simulate
from traces.errors import InputError
from traces.request import Request

from . import planning
from .asked import Load
from .simulation import STEP, Subject

LOADS = ("speedup", "request_rate")  # axes that change the load; all others are settings of the targets
COUNTS = ("pool", "tp", "max_batch", "chunk", "drafted", "local_below")
POINTS = 8
LARGEST = 20_000  # points of a grid
SAMPLE = 1_000
UNSWEPT = {"itl", "longest_stall", "lateness", "connect"}  # metrics that points don't keep
OUTCOMES = {0: "met", 1: "missed", 3: "undecided"}  # by the exit code that the gates of a point alone would give

Value = float | str
Point = tuple[int, Subject, tuple[tuple[str, Value], ...]]

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
    chosen: Sequence[Subject],
    load: Load,
    sweeps: Sequence[str],
    out: Path | None,
    *,
    name: str,
    model: str,
    goodput: Sequence[str],
    slo: Sequence[str] = (),
) -> int:
    """Simulates the grid and writes planning.json and planning.html; returns the exit code: with gates, 0 where some
    point meets all that concern it, else 3 where one can't be decided, else 1."""
    from rich.console import Console

    from reports import planning as report

    objectives, gates = parse_goodput(list(goodput)), [parse(text) for text in slo]
    _answerable(gates, objectives, [subject.name for subject in chosen])
    axes = dict(axis(text) for text in sweeps)
    points = list(_points(chosen, axes, model))
    if len(points) > LARGEST:
        raise InputError(f"{len(points):,} points", where="--sweep", remedy=f"at most {LARGEST:,}")
    for loads in {_loads(values) for _, _, values in points}:
        _REQUESTS[loads] = list(planning.requests(_at(load, dict(loads))))
    folder = planning.new_folder(name, out)
    rows = _simulated(points, model, load, objectives, gates)
    base = _REQUESTS[min(_REQUESTS)]
    found = {
        "model": model,
        "trace": load.trace,
        "goodput": list(goodput),
        "slo": list(slo),
        "axes": axes,
        "points": rows,
        "targets": [_about(subject, model, base) for subject in chosen],
        "crossovers": list(_crossovers(chosen, model, base)),
        "hybrids": [hybrid for subject in chosen if (hybrid := _hybrid(subject, model, base))],
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


def _points(chosen: Sequence[Subject], axes: Mapping[str, Sequence[Value]], model: str) -> Iterator[Point]:
    """Every combination for each target, of the axes that it knows."""
    used = set()
    number = 0
    for subject in chosen:
        subject.build(model)
        own = [key for key, values in axes.items() if key in LOADS or _knows(subject, key, values, model)]
        used |= set(own)
        for values in product(*(axes[key] for key in own)):
            yield number, subject, tuple(zip(own, values, strict=True))
            number += 1
    if unused := set(axes) - used:
        raise InputError(f"no target has a setting {min(unused)}", where="--sweep")


def _knows(subject: Subject, key: str, values: Sequence[Value], model: str) -> bool:
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


def _set(subject: Subject, values: Sequence[tuple[str, Value]]) -> Subject:
    own = {key: value if isinstance(value, str) else f"{value:.12g}" for key, value in values if key not in LOADS}
    return replace(subject, settings={**subject.settings, **own})


def _simulated(
    points: Sequence[Point], model: str, load: Load, objectives: Mapping[str, float], gates: Sequence[Gate]
) -> list[dict[str, Any]]:
    """A row for each point, in order; with a progress bar on a terminal."""
    from rich.progress import track

    tasks = [(point, model, load, dict(objectives), tuple(gates)) for point in points]
    gc.freeze()  # a collection in a worker would walk, and so copy, all the requests
    with multiprocessing.get_context("fork").Pool(min(len(os.sched_getaffinity(0)), len(tasks)), gc.disable) as pool:
        done = pool.imap_unordered(_measure, tasks)
        rows = dict(track(done, "simulating", len(tasks), transient=True, disable=len(tasks) < 4))
    return [rows[number] for number in sorted(rows)]


def _measure(task: tuple[Point, str, Load, dict[str, float], tuple[Gate, ...]]) -> tuple[int, dict[str, Any]]:
    (number, subject, values), model, load, objectives, gates = task
    requests = _REQUESTS[_loads(values)]
    endpoint = _set(subject, values).build(model, load.seed)
    rows = list(simulate(endpoint, requests))
    exchanges = [exchange for exchange in rows if exchange.due >= load.warmup / NANO]
    good = [exchange for exchange in exchanges if exchange.ok]
    ttft = np.array([exchange.ttft for exchange in good], float)
    tpot = np.array([value for exchange in good if (value := exchange.tpot) is not None], float)
    e2e = np.array([exchange.e2e for exchange in good], float)
    tokens = sum(exchange.output_count for exchange in good)
    span = (max((exchange.done or 0) for exchange in exchanges) - min(e.due for e in exchanges)) * NANO
    offered = max((requests[-1].due - requests[0].due) * NANO, 1e-9)
    met = [exchange for exchange in good if _meets(exchange, objectives)]
    met_tokens = sum(exchange.output_count for exchange in met)
    dollars = endpoint.price / 3600 * span if endpoint.price else None
    joules = endpoint.watts * span if endpoint.watts else None
    end = load.seconds / NANO if load.seconds else requests[-1].due
    verdicts = _verdicts(gates, subject.name, rows, exchanges, (load.warmup / NANO, end), met if objectives else None)
    return number, {
        "target": subject.name,
        "values": dict(values),
        "rate": len(requests) / offered,
        "requests": len(exchanges),
        "failed": len(exchanges) - len(good),
        "ttft": _quantiles(ttft),
        "tpot": _quantiles(tpot),
        "e2e": _quantiles(e2e),
        "queue_mean": _mean(exchange.server_queue for exchange in good),
        "prefill_mean": _mean(exchange.server_prefill for exchange in good),
        "transfer_mean": _mean(exchange.server_transfer or 0.0 for exchange in good),
        "decode_mean": _mean(exchange.server_decode for exchange in good),
        "tokens_per_s": tokens / span,
        "in_flight": float(e2e.sum() / span),
        "goodput": len(met) / len(exchanges),
        "units": endpoint.units,
        "dollars_per_mtok": dollars / tokens * 1e6 if dollars and tokens else None,
        "dollars_per_good_mtok": dollars / met_tokens * 1e6 if dollars and met_tokens else None,
        "joules_per_token": joules / tokens if joules and tokens else None,
        "slo": OUTCOMES[exit_code(verdicts, "valid")] if verdicts else None,
        "gates": [verdict.as_json() for verdict in verdicts],
    }


def _verdicts(
    gates: Sequence[Gate],
    target: str,
    rows: Sequence[Exchange],
    counted: Sequence[Exchange],
    window: tuple[float, float],
    met: Sequence[Exchange] | None,
) -> list[Verdict]:
    """On the gates that concern this target, from the same figures as a run's."""
    gates = [gate for gate in gates if gate.target in ("", target)]
    if not gates:
        return []
    import pandas as pd

    from reports.recorded import rates

    answered = [exchange for exchange in counted if exchange.ok]
    seconds = {
        metric: np.sort([value for exchange in answered if (value := getattr(exchange, metric)) is not None])
        for metric in {gate.metric for gate in gates} & set(LATENCIES)
    }
    columns = ("first_token", "last_token", "ok", "done", "output_count")
    frame = pd.DataFrame({name: [getattr(exchange, name) for exchange in rows] for name in columns})
    sample = {
        "counted": len(counted),
        "failed": len(counted) - len(answered),
        "window": (window[1] - window[0]) * NANO,
        "values": seconds,
        "good": None if met is None else len(met),
        **rates(frame.astype({"first_token": float, "last_token": float, "done": float}), window),
    }
    return [decide(gate, sample, target, STEP) for gate in gates]


def _meets(exchange: Any, objectives: Mapping[str, float]) -> bool:
    """As reports.recorded.meets: an undefined figure violates nothing."""
    return all((getattr(exchange, metric) or 0.0) <= limit for metric, limit in objectives.items())


def _quantiles(values: Any) -> dict[str, float] | None:
    return {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99))} if len(values) else None


def _mean(values: Any) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _about(subject: Subject, model: str, requests: Sequence[Request]) -> dict[str, Any]:
    """What holds of a target whatever the load."""
    endpoint = subject.build(model)
    times = analysis.roofline(endpoint)
    prompt, output = _typical(requests)
    about: dict[str, Any] = {
        "name": subject.name,
        "profile": endpoint.name,
        "description": endpoint.profile.description,
        "standing": endpoint.profile.standing,
        "settings": dict(subject.settings),
        "floor": analysis.floor(endpoint),
        "price_per_hour": endpoint.price,
        "watts": endpoint.watts,
    }
    sample = requests[:SAMPLE]
    bare = {key: value for key, value in subject.settings.items() if not key.endswith("pool")}
    about["capacity"] = list(capacity.capacity(subject.profile, sample, model=model, settings=bare))
    single = analysis.alone(subject.profile, prompt, output, model, bare)
    about["alone"] = {"ttft": single.first, "tpot": (single.last - single.first) / max(1, output - 1)}
    station = endpoint.station
    if times and isinstance(station, Pool):
        context = prompt + output // 2
        about["decode"] = analysis.decode_curve(times, context)
        about["batch_cost"] = analysis.price_of_speed(
            times,
            (endpoint.price or 0.0) / len(station.replicas),
            prompt,
            output,
            station.replicas[0].batching.kv_tokens,
        )
    return about


def _crossovers(chosen: Sequence[Subject], model: str, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
    """From which batch on a replica of each GPU target decodes more tokens a second than a rack of each other."""
    prompt, output = _typical(requests)
    stations = {subject.name: subject.build(model) for subject in chosen}
    racks = {name: end.station.tpot for name, end in stations.items() if isinstance(end.station, Racks)}
    for name, endpoint in stations.items():
        times = analysis.roofline(endpoint)
        if times and isinstance(endpoint.station, Pool):
            for rack, tpot in racks.items():
                batch = analysis.crossover(times, prompt + output // 2, tpot)
                yield {"gpu": name, "rack": rack, "rack_tokens_per_s": 1 / tpot, "batch": batch}


def _typical(requests: Sequence[Request]) -> tuple[int, int]:
    """Median lengths of the requests."""
    prompts = sorted(request.prompt_tokens for request in requests)
    outputs = sorted(request.output_tokens for request in requests)
    return max(1, prompts[len(prompts) // 2]), max(2, outputs[len(outputs) // 2])


def _hybrid(subject: Subject, model: str, requests: Sequence[Request]) -> dict[str, Any] | None:
    """What a composition gains over the faster of its parts alone, by output length and link bandwidth."""
    endpoint = subject.build(model)
    if not isinstance(endpoint.station, Disaggregated):
        return None
    prompt, _ = _typical(requests)
    longest = max(16, endpoint.station.limit - prompt)
    outputs = sorted({min(int(n), longest) for n in np.geomspace(8, 1024, 9)})
    bandwidths = [float(f"{b:.3g}") for b in np.geomspace(1.1, 450, 9)]
    settings = {key: value for key, value in subject.settings.items() if key != "pool"}
    gain = analysis.hybrid_gain(subject.profile, outputs, bandwidths, prompt=prompt, model=model, settings=settings)
    return {
        "name": subject.name,
        "alone": [name for name, _ in analysis.parts(subject.profile, settings)],
        "prompt": prompt,
        "outputs": outputs,
        "bandwidths": bandwidths,
        "gain": gain,
    }
