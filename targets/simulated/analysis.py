"""What holds of simulated hardware before any traffic: capacity, floors, crossovers, what a hybrid gains, the price of
speed.

Each figure is computed by the engine itself (jobs through a fresh endpoint), or in closed form from the same step
times; nothing here has constants of its own. The dataclasses are parts of planning.json.

For capacity the engine is saturated: the requests are offered all at once, far more than fit, and the rate at which
they leave is taken between the first fifth and the last fifth of them, while the batches are full. More than this rate
makes the queue grow without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from statistics import median_high

import numpy as np

from traces.errors import InputError
from traces.request import Request

from .build import Endpoint, SimulatedTarget, build
from .engine.batching import Roofline
from .engine.job import Job, Station
from .engine.replica import Pool
from .engine.stations import Disaggregated, Racks
from .profiles import MODEL, load

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SAMPLE = 1_000  # requests from which capacity is computed, repeated where the workload has fewer


@dataclass(frozen=True)
class Alone:
    """One request on an idle endpoint, in seconds."""

    ttft: float
    tpot: float


@dataclass(frozen=True)
class Hardware:
    """What holds of a target whatever the load; seconds, $/h and W of the whole target. `capacity`: requests a second
    of one replica at full use; of a composition, of one of each pool; empty where no request fits into its context."""

    name: str
    profile: str
    description: str
    standing: str
    settings: dict[str, str]
    floor: float | None  # to read the weights once: no batch makes a token faster; None for racks, which read SRAM
    price_per_hour: float | None
    watts: float | None
    capacity: tuple[float, ...]
    alone: Alone | None  # a request of the median lengths; None where that doesn't fit
    decode: list[tuple[int, float]]  # (batch, tokens/s of a replica); empty for racks and compositions
    batch_cost: list[tuple[int, float, float]]  # (batch cap, TPOT in s, $ a million output tokens); empty for the same


@dataclass(frozen=True)
class Crossover:
    """From `batch` on a replica of `gpu` decodes more tokens a second than a rack of `rack`; None up to 1,024."""

    gpu: str
    rack: str
    rack_tokens_per_s: float
    batch: int | None


@dataclass(frozen=True)
class Hybrid:
    """`gain`: a row for each link bandwidth (GB/s), a column for each number of output tokens; see `hybrid_gain`."""

    name: str
    alone: list[str]  # the profiles that it is compared with
    prompt: int
    outputs: list[int]
    bandwidths: list[float]
    gain: list[list[float]]


def hardware(target: SimulatedTarget, model: str, requests: Sequence[Request]) -> Hardware:
    """Facts of a target, for requests such as these."""
    endpoint = target.build(model)
    times, station = roofline(endpoint), endpoint.station
    prompt, output = _typical(requests)
    bare = {key: value for key, value in target.settings.items() if not key.endswith("pool")}
    fitting = [r for r in requests[:SAMPLE] if r.prompt_tokens + r.output_tokens <= station.limit]
    single = None
    if prompt + output <= station.limit:
        job = alone(target.profile, prompt, output, model, bare)
        single = Alone(job.first, (job.last - job.first) / max(1, output - 1))
    decode, batch_cost = [], []
    if times and isinstance(station, Pool):
        price = (endpoint.price or 0.0) / len(station.replicas)
        decode = decode_curve(times, prompt + output // 2)
        batch_cost = price_of_speed(times, price, prompt, output, station.replicas[0].batching.kv_tokens)
    return Hardware(
        name=target.name, profile=endpoint.name, description=endpoint.profile.description,
        standing=endpoint.profile.standing, settings=dict(target.settings), floor=times.weights if times else None,
        price_per_hour=endpoint.price, watts=endpoint.watts,
        capacity=capacity(target.profile, fitting, model=model, settings=bare) if fitting else (), alone=single,
        decode=decode, batch_cost=batch_cost,
    )  # fmt: skip


def crossovers(targets: Sequence[SimulatedTarget], model: str, requests: Sequence[Request]) -> Iterator[Crossover]:
    """Of a replica of each GPU target with a rack of each other target."""
    prompt, output = _typical(requests)
    endpoints = {target.name: target.build(model) for target in targets}
    racks = {name: end.station.tpot for name, end in endpoints.items() if isinstance(end.station, Racks)}
    for name, endpoint in endpoints.items():
        times = roofline(endpoint)
        if times and isinstance(endpoint.station, Pool):
            for rack, tpot in racks.items():
                yield Crossover(name, rack, 1 / tpot, crossover(times, prompt + output // 2, tpot))


def hybrid(target: SimulatedTarget, model: str, requests: Sequence[Request]) -> Hybrid | None:
    """What a composition gains over the faster of its parts alone; None for other targets, and for prompts that don't
    fit."""
    station = target.build(model).station
    prompt, _ = _typical(requests)
    longest = station.limit - prompt
    if not isinstance(station, Disaggregated) or longest < 16:
        return None
    outputs = sorted({min(int(n), longest) for n in np.geomspace(8, 1024, 9)})
    bandwidths = [float(f"{b:.3g}") for b in np.geomspace(1.1, 450, 9)]
    settings = {key: value for key, value in target.settings.items() if key != "pool"}
    gain = hybrid_gain(target.profile, outputs, bandwidths, prompt=prompt, model=model, settings=settings)
    return Hybrid(target.name, [name for name, _ in parts(target.profile, settings)], prompt, outputs, bandwidths, gain)


def _typical(requests: Sequence[Request]) -> tuple[int, int]:
    """Median lengths of the requests."""
    prompt = median_high(request.prompt_tokens for request in requests)
    return max(1, prompt), max(2, median_high(request.output_tokens for request in requests))


def alone(name: str, prompt: int, output: int, model: str, settings: Mapping[str, str] = {}) -> Job:
    """One job on an idle endpoint, done."""
    endpoint = build(name, model=model, settings=settings)
    job = Job(0, 0.0, prompt, output, lambda job, now: None)
    endpoint.station.submit(job, 0.0)
    endpoint.queue.run(inf)
    return job


def roofline(endpoint: Endpoint) -> Roofline | None:
    """Step times of a GPU endpoint, of the decode pool of a composition; None for racks."""
    station = endpoint.station
    decode = station.decode if isinstance(station, Disaggregated) else station
    return decode.replicas[0].roofline if isinstance(decode, Pool) else None


def decode_curve(times: Roofline, context: int) -> list[tuple[int, float]]:
    """(batch, tokens a second of a replica) with sequences of `context` tokens."""
    return [(batch, times.gain * batch / times.decode(batch, batch * context)) for batch in BATCHES]


def crossover(times: Roofline, context: int, rack_tpot: float) -> int | None:
    """The smallest batch at which a GPU decodes more tokens a second than one rack; None up to 1,024."""
    batches = range(1, 1025)
    rates = (times.gain * batch / times.decode(batch, batch * context) for batch in batches)
    return next((batch for batch, rate in zip(batches, rates, strict=True) if rate > 1 / rack_tpot), None)


def parts(hybrid: str, settings: Mapping[str, str] = {}) -> list[tuple[str, dict[str, str]]]:
    """(profile, settings) of the hardware that could do without the hand-over: the prefill's, and a decode rack. A
    decode pool of GPUs is left out: with as many cards the prefill's stand for it."""
    profile = load(hybrid)
    settings = {**profile.settings, **settings}
    singles = []
    for side, default in (("prefill", profile.prefill), ("decode", profile.decode)):
        name, start = settings.get(side, default), f"{side}."
        if side == "prefill" or load(name).kind == "pipeline":
            own = {key.removeprefix(start): value for key, value in settings.items() if key.startswith(start)}
            singles.append((name, own))
    return singles


def hybrid_gain(
    hybrid: str, outputs: Sequence[int], bandwidths: Sequence[float], *, prompt: int = 1024, model: str = MODEL,
    settings: Mapping[str, str] = {},
) -> list[list[float]]:  # fmt: skip
    """End-to-end time on the faster of its `parts` over that on the hybrid, a row for each link bandwidth (GB/s):
    above 1 the hybrid pays."""
    singles = parts(hybrid, settings)
    plain = [min(alone(name, prompt, output, model, own).last for name, own in singles) for output in outputs]
    rows = []
    for bandwidth in bandwidths:
        linked = {**settings, "link.bandwidth": str(bandwidth)}
        rows.append([t / alone(hybrid, prompt, n, model, linked).last for t, n in zip(plain, outputs, strict=True)])
    return rows


def price_of_speed(
    times: Roofline, price: float, prompt: int, output: int, kv_tokens: float
) -> list[tuple[int, float, float]]:
    """(batch cap, TPOT in s, $ a million output tokens) of a replica kept full, as premium tiers sell it. A batch of B
    finishes B answers in the time of `output` steps and B prefills; caps whose KV doesn't fit are left out. `price` in
    $/h of one replica."""
    points = []
    for batch in BATCHES:
        context = batch * (prompt + output / 2)
        if context > kv_tokens:
            break
        # Chunks of prompts ride in decode steps: each step carries its share of them.
        share = batch / output * times.gain
        step = times.mixed(batch, context, share * prompt, share * prompt**2, share, share)
        tokens = batch * times.gain / step
        points.append((batch, step / times.gain, price / 3600 / tokens * 1e6))
    return points


def capacity(
    name: str, requests: Iterable[Request], *, model: str = MODEL, settings: Mapping[str, str] = {}
) -> tuple[float, ...]:
    """Requests a second at full use: of one replica or rack, and for a composition of one of each pool. Requests that
    exceed the endpoint's context are left out. InputError where none fits."""
    single = {**settings, "pool": "1"}
    endpoint = build(name, model=model, settings=single)
    lengths = [(r.prompt_tokens or 1, r.output_tokens or 1) for r in requests]
    lengths = [(prompt, output) for prompt, output in lengths if prompt + output <= endpoint.station.limit]
    if not lengths:
        raise InputError("no request fits into the endpoint's context", remedy="--max-context cuts their lengths")
    lengths = (lengths * ceil(SAMPLE / len(lengths)))[: max(SAMPLE, min(len(lengths), 4 * SAMPLE))]
    rates = [_saturated(endpoint, 0, lengths)]
    if isinstance(endpoint.station, Disaggregated):
        rates.append(_saturated(build(name, model=model, settings=single), 1, lengths))
    return tuple(rates)


def pool(
    name: str, requests: Iterable[Request], rate: float, *, use: float = 0.6, model: str = MODEL,
    settings: Mapping[str, str] = {},
) -> str:  # fmt: skip
    """The `pool` setting (N, or P:D) with which `rate` requests a second use at most the share `use` of it."""
    rates = capacity(name, requests, model=model, settings=settings)
    return ":".join(str(ceil(rate / (use * single))) for single in rates)


def _saturated(endpoint: Endpoint, part: int, lengths: list[tuple[int, int]]) -> float:
    """Rate of the endpoint, or of its prefill (0) or decode pool (1) alone."""
    whole, queue = endpoint.station, endpoint.queue
    station: Station = (whole.prefill, whole.decode)[part] if isinstance(whole, Disaggregated) else whole
    left: list[float] = []

    def done(job: Job, now: float) -> None:
        left.append(now)
        if job.prefill_only and isinstance(station, Pool):
            station.release(job, now)

    for number, (prompt, output) in enumerate(lengths):
        job = Job(number, 0.0, prompt, output, done)
        job.prefill_only = station is not whole and part == 0
        job.prefilled = station is not whole and part == 1
        station.submit(job, 0.0)
    queue.run(inf)
    low, high = len(left) // 5, len(left) * 4 // 5
    return (high - low) / (left[high] - left[low])
