"""How much of a workload an endpoint carries, and how many replicas a rate needs: the engine is saturated.

The requests are offered all at once, far more than fit, and the rate at which they leave is taken between the first
fifth and the last fifth of them: while the batches are full. More than this rate makes the queue grow without end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, inf

from traces.errors import InputError
from traces.request import Request

from .build import Endpoint, build
from .engine.disaggregation import Disaggregated
from .engine.job import Job, Station
from .engine.replica import Pool

SAMPLE = 1_000  # requests, repeated where the workload has fewer


def capacity(
    name: str, requests: Iterable[Request], *, model: str = "llama2-7b", settings: Mapping[str, str] | None = None
) -> tuple[float, ...]:
    """Requests a second at full use: of one replica or rack, and for a composition of one of each pool.

    Requests that exceed the endpoint's context are left out. InputError where none fits.
    """
    lengths = [(r.prompt_tokens or 1, r.output_tokens or 1) for r in requests]
    parts = 2 if isinstance(_single(name, model, settings).station, Disaggregated) else 1
    return tuple(_saturated(_single(name, model, settings), part, lengths) for part in range(parts))


def pool(
    name: str,
    requests: Iterable[Request],
    rate: float,
    *,
    use: float = 0.6,
    model: str = "llama2-7b",
    settings: Mapping[str, str] | None = None,
) -> str:
    """The `pool` setting (N, or P:D) with which `rate` requests a second use at most the share `use` of it."""
    rates = capacity(name, requests, model=model, settings=settings)
    return ":".join(str(ceil(rate / (use * single))) for single in rates)


def _single(name: str, model: str, settings: Mapping[str, str] | None) -> Endpoint:
    return build(name, model=model, settings={**(settings or {}), "pool": "1"})


def _saturated(endpoint: Endpoint, part: int, lengths: list[tuple[int, int]]) -> float:
    """Rate of the endpoint, or of its prefill (0) or decode pool (1) alone."""
    whole, queue = endpoint.station, endpoint.queue
    lengths = [(prompt, output) for prompt, output in lengths if prompt + output <= whole.limit]
    if not lengths:
        raise InputError("no request fits into the endpoint's context", remedy="--max-context cuts their lengths")
    lengths = (lengths * ceil(SAMPLE / len(lengths)))[: max(SAMPLE, min(len(lengths), 4 * SAMPLE))]
    station: Station = whole
    if isinstance(whole, Disaggregated):
        station = (whole.prefill, whole.decode)[part]
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
