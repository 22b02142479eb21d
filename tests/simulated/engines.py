"""Helpers of these tests: endpoints by name, and jobs that arrive at given instants."""

from __future__ import annotations

from math import inf

from targets.simulated.build import Endpoint, build
from targets.simulated.engine.job import Job


def endpoint(name: str, model: str = "llama2-7b", *, real_time: bool = False, **settings: object) -> Endpoint:
    return build(
        name,
        model=model,
        settings={key.replace("__", "."): str(value) for key, value in settings.items()},
        real_time=real_time,
    )


def work(endpoint: Endpoint, jobs: list[tuple[float, int, int]]) -> list[Job]:
    """Jobs of (arrival, prompt, output), in order of arrival, all done."""
    left: list[Job] = []
    made = []
    for number, (arrival, prompt, output) in enumerate(jobs):
        endpoint.queue.run(arrival)
        made.append(Job(number, arrival, prompt, output, lambda job, now: left.append(job)))
        endpoint.station.submit(made[-1], arrival)
    endpoint.queue.run(inf)
    assert len(left) == len(jobs)
    return made


def alone(endpoint: Endpoint, prompt: int, output: int) -> Job:
    return work(endpoint, [(0.0, prompt, output)])[0]


def tpot(job: Job) -> float:
    return (job.last - job.first) / (job.output - 1)
