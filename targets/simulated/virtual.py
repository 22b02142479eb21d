"""Driver one, virtual time: a trace in, `Exchange`s out, as fast as the engine can compute them.

Requests enter at their own instants and Exchanges come out as they end, so memory stays flat however long the trace
is. The instants are the plan's: no network, no client, nothing late.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from math import inf

import numpy as np

from traces.request import NS_PER_S, Request

from ..exchange import Call, Exchange, Outcome
from .build import Endpoint
from .engine.job import Job


def simulate(
    endpoint: Endpoint, requests: Iterable[Request], *, target: str = "", step: str = "", warmup: int = 0,
    block_tokens: int | Mapping[int, int] = 0,
) -> Iterator[Exchange]:  # fmt: skip
    """One Exchange for each request, in the order in which they end. An endpoint serves one simulation. Requests due
    before `warmup` (ns) don't count. `block_tokens`: the trace's, for endpoints with a prefix cache. Without a journal
    an Exchange has two token instants, the first and the last."""
    queue, station, caches = endpoint.queue, endpoint.station, endpoint.caches
    complete: deque[Job] = deque()

    def done(job: Job, now: float) -> None:
        complete.append(job)

    for number, request in enumerate(requests):
        now = request.due / NS_PER_S
        queue.run(now)
        while complete:
            yield _exchange(complete.popleft())
        due = request.due
        call = Call(request=request, target=target or endpoint.name, due=due, step=step, counted=due >= warmup)
        # A model writes at least one token; a row without a length gets one.
        output = request.output_tokens or 1
        if request.prompt_tokens + output > station.limit:
            yield Exchange(
                call, started=due, connected=due, sent=due, body_sent=due, headers_at=due, done=due, status=400,
                outcome=Outcome.HTTP_ERROR, error=f"prompt and answer exceed the context of {station.limit} tokens",
            )  # fmt: skip
        else:
            prefix = _sized(request.prefix, block_tokens) if caches else ()
            job = Job(number, now, request.prompt_tokens or 1, output, done, call, prefix)
            if endpoint.journal:
                job.times = array("d")
            station.submit(job, now)
    queue.run(inf)
    while complete:
        yield _exchange(complete.popleft())


def _sized(prefix: tuple[int, ...], block_tokens: int | Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    if isinstance(block_tokens, int):
        return tuple((block, block_tokens) for block in prefix) if block_tokens else ()
    return tuple((block, block_tokens[block]) for block in prefix)


def _exchange(job: Job) -> Exchange:
    call, tokens = job.sink, job.output
    first, last = round(job.first * NS_PER_S), round(job.last * NS_PER_S)
    if job.times is not None:
        token_at = array("q", np.rint(np.frombuffer(job.times) * NS_PER_S).astype(np.int64).tobytes())
        token_events = array("i", [1, *job.counts]) if job.counts else array("i", [1]) * len(token_at)
    else:
        token_at = array("q", (first, last) if tokens > 1 else (first,))
        token_events = array("i", (1, tokens - 1) if tokens > 1 else (1,))
    queue, prefill, transfer, decode = job.phases()
    handed, due = job.handed >= 0, call.due
    return Exchange(
        call, started=due, connected=due, sent=due, body_sent=due, headers_at=due, done=last,
        token_at=token_at, token_events=token_events,
        status=200, outcome=Outcome.OK, finish_reason="length",
        usage_prompt=job.prompt, usage_output=tokens, usage_cached=job.cached,
        server_queue=queue, server_prefill=prefill, server_decode=decode, server_transfer=transfer if handed else None,
        prefill_worker=str(job.prefill_worker) if handed else None,
        decode_worker=str(job.decode_worker) if handed else None,
    )  # fmt: skip
