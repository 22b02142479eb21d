"""What holds of simulated hardware whatever the load: floors, crossovers, what a hybrid gains; for planning.html."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from targets.simulated import analysis, sizing
from targets.simulated.engine.disaggregation import Disaggregated
from targets.simulated.engine.pipeline import Racks
from targets.simulated.engine.pool import Pool
from traces.trace import Request

from .virtual_run import Subject

SAMPLE = 1_000  # requests from which capacity is computed


def about(subject: Subject, model: str, requests: Sequence[Request]) -> dict[str, Any]:
    """What holds of a target whatever the load."""
    endpoint = subject.build(model)
    times = analysis.roofline(endpoint)
    prompt, output = _typical(requests)
    told: dict[str, Any] = {
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
    told["capacity"] = list(sizing.capacity(subject.profile, sample, model=model, settings=bare))
    single = analysis.alone(subject.profile, prompt, output, model, bare)
    told["alone"] = {"ttft": single.first, "tpot": (single.last - single.first) / max(1, output - 1)}
    station = endpoint.station
    if times and isinstance(station, Pool):
        context = prompt + output // 2
        told["decode"] = analysis.decode_curve(times, context)
        told["batch_cost"] = analysis.price_of_speed(
            times,
            (endpoint.price or 0.0) / len(station.replicas),
            prompt,
            output,
            station.replicas[0].batching.kv_tokens,
        )
    return told


def crossovers(chosen: Sequence[Subject], model: str, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
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


def hybrid(subject: Subject, model: str, requests: Sequence[Request]) -> dict[str, Any] | None:
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
