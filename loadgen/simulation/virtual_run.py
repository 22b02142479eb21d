"""`phaseload simulate`: the same trace through endpoints in virtual time, recorded as a live run would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from reports.store.row_files import Writer
from targets.simulated.build import Endpoint, SimulatedTarget
from targets.simulated.virtual import simulate
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from .. import plan as plans
from ..load import Load
from ..run import record

STEP = "simulate"
FLUSH = 5_000  # rows of a result file


def subjects(texts: Sequence[str], settings: Mapping[str, str]) -> list[SimulatedTarget]:
    """`[NAME=]PROFILE[,KEY=VALUE...]` of each; `settings` are for all of them."""
    found = [SimulatedTarget.parse(text, settings) for text in texts]
    names = [subject.name for subject in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two targets are called {min(twice)}", remedy="--target NAME=PROFILE")
    return found


def run(
    chosen: Sequence[SimulatedTarget], load: Load, trace: Trace, folder: Path, *, model: str, about: Mapping[str, Any]
) -> None:
    """Simulates all of them and writes the run's folder; summary and report follow from it as for any run."""
    endpoints = {subject.name: subject.build(model, load.seed, journal=True) for subject in chosen}
    last = 0
    for number, (name, endpoint) in enumerate(endpoints.items()):
        last = max(last, _record(Writer(folder, number), endpoint, name, trace, load))
    facts = _facts(chosen, endpoints, load, trace, last, model)
    (folder / "run.json").write_bytes(orjson.dumps({"name": folder.name, **facts, **about}, option=orjson.OPT_INDENT_2))


def _record(writer: Writer, endpoint: Endpoint, name: str, trace: Trace, load: Load) -> int:
    """Rows of one endpoint; returns its last instant."""
    warmup = round(load.warmup * NS_PER_S)
    last = 0
    blocks = trace.block_tokens
    for exchange in simulate(endpoint, trace, target=name, step=STEP, warmup=warmup, block_tokens=blocks):
        last = max(last, exchange.done or 0)
        writer.append(exchange)
        if len(writer) >= FLUSH:
            writer.flush()
    writer.flush()
    return last


def _facts(
    chosen: Sequence[SimulatedTarget],
    endpoints: Mapping[str, Endpoint],
    load: Load,
    trace: Trace,
    last: int,
    model: str,
) -> dict[str, Any]:
    warmup, end = round(load.warmup * NS_PER_S), round(load.seconds * NS_PER_S) if load.seconds else trace.span
    phase = {"name": STEP, "load": load.describe(), "start": 0, "window": [warmup, end], "end": last}
    planned = {subject.name: len(trace) for subject in chosen}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("phaseload"),
        "seed": load.seed,
        "salt": "none",
        "simulated": True,
        "order": "parallel",
        "trace": plans.about(trace),
        "targets": [_target(subject, endpoints[subject.name], model) for subject in chosen],
        "phases": [{**phase, "warmup_s": load.warmup, "drain_s": (last - end) / NS_PER_S, "planned": planned}],
        "workers": [],
        "missing": {},
        "missing_requests": [],
        "ended": "completed",
        "clock": {"origin_ns": 0},
        "machine": record.machine(),
    }


def _target(subject: SimulatedTarget, endpoint: Endpoint, model: str) -> dict[str, Any]:
    return {
        "name": subject.name,
        "model": model,
        "endpoint_type": "simulated in virtual time",
        "embedded": True,
        "description": f"simulated: {endpoint.profile.description}; {model}",
        "standing": endpoint.profile.standing,
        "settings": dict(subject.settings),
        "units": endpoint.units,
        "price_per_hour": endpoint.price,
        "watts": endpoint.watts,
    }
