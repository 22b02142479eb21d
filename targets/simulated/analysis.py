"""What the engine says about hardware before any traffic: floors, crossovers, what a hybrid gains, price of speed.

Each figure is computed by the engine itself (jobs through a fresh endpoint), or in closed form from the same step
times; nothing here has constants of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from .build import Endpoint, build
from .engine.disaggregation import Disaggregated
from .engine.job import Job
from .engine.pool import Pool
from .engine.roofline import Roofline
from .profiles import load

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def alone(name: str, prompt: int, output: int, model: str, settings: Mapping[str, str] | None = None) -> Job:
    """One job on an idle endpoint, done."""
    endpoint = build(name, model=model, settings=settings)
    over: list[Job] = []
    endpoint.station.submit(Job(0, 0.0, prompt, output, lambda job, now: over.append(job)), 0.0)
    endpoint.queue.run(inf)
    return over[0]


def roofline(endpoint: Endpoint) -> Roofline | None:
    """Step times of a GPU endpoint, of the decode pool of a composition; None for racks."""
    station = endpoint.station
    decode = station.decode if isinstance(station, Disaggregated) else station
    return decode.replicas[0].roofline if isinstance(decode, Pool) else None


def floor(endpoint: Endpoint) -> float | None:
    """Seconds to read the weights once: no batch makes a GPU's token faster. None for racks, which read SRAM."""
    times = roofline(endpoint)
    return times.weights if times else None


def decode_curve(times: Roofline, context: int) -> list[tuple[int, float]]:
    """(batch, tokens a second of a replica) with sequences of `context` tokens."""
    return [(batch, times.gain * batch / times.decode(batch, batch * context)) for batch in BATCHES]


def crossover(times: Roofline, context: int, rack_tpot: float) -> int | None:
    """The smallest batch at which a GPU decodes more tokens a second than one rack; None up to 1,024."""
    for batch in range(1, 1025):
        if times.gain * batch / times.decode(batch, batch * context) > 1 / rack_tpot:
            return batch
    return None


def parts(hybrid: str, settings: Mapping[str, str] | None = None) -> list[tuple[str, dict[str, str]]]:
    """(profile, settings) of the hardware that could do without the hand-over: the prefill's, and a decode rack.

    A decode pool of GPUs is left out: with as many cards the prefill's stand for it.
    """
    profile = load(hybrid)
    wanted = {**profile.settings, **(settings or {})}
    found = []
    for side, default in (("prefill", profile.prefill), ("decode", profile.decode)):
        name = wanted.get(side, default)
        if side == "prefill" or load(name).kind == "pipeline":
            start = f"{side}."
            own = {key.removeprefix(start): value for key, value in wanted.items() if key.startswith(start)}
            found.append((name, own))
    return found


def hybrid_gain(
    hybrid: str,
    outputs: Sequence[int],
    bandwidths: Sequence[float],
    *,
    prompt: int = 1024,
    model: str = "llama2-7b",
    settings: Mapping[str, str] | None = None,
) -> list[list[float]]:
    """End-to-end time on the faster of its `parts` over that on the hybrid, a row for each link bandwidth (GB/s):
    above 1 the hybrid pays."""
    singles = parts(hybrid, settings)
    plain = [min(alone(name, prompt, output, model, own).last for name, own in singles) for output in outputs]
    rows = []
    for bandwidth in bandwidths:
        linked = {**(settings or {}), "link.bandwidth": str(bandwidth)}
        rows.append([t / alone(hybrid, prompt, n, model, linked).last for t, n in zip(plain, outputs, strict=True)])
    return rows


def price_of_speed(
    times: Roofline, price: float, prompt: int, output: int, kv_tokens: float
) -> list[tuple[int, float, float]]:
    """(batch cap, TPOT in s, $ a million output tokens) of a replica kept full, as premium tiers sell it.

    A batch of B finishes B answers in the time of `output` steps and B prefills; caps whose KV doesn't fit are left
    out. `price` in $/h of one replica.
    """
    found = []
    for batch in BATCHES:
        context = batch * (prompt + output / 2)
        if context > kv_tokens:
            break
        # Chunks of prompts ride in decode steps: each step carries its share of them.
        share = batch / output * times.gain
        step = times.mixed(batch, context, share * prompt, share * prompt**2, share, share)
        tokens = batch * times.gain / step
        found.append((batch, step / times.gain, price / 3600 / tokens * 1e6))
    return found
