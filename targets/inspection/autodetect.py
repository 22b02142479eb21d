"""`type = "auto"`: which endpoint type does a target answer to? One short request a type, until an answer settles it.

Dynamo's request goes first: who answers it with `nvext` is one, who takes it at all speaks chat. What an answer leaves
to be tried is `left`: nothing, where it speaks for every type (a rate limit, nobody there, a hang) or where its wire
format was recognised, however it ended; of a refused field only Groq, which has it under another name; of a refused key
only those types that send it another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..exchange import Exchange, Outcome
from ..target import Target
from ..wire import WIRES
from .probe import Probe, judge, probe, refused_field

AUTO = "auto"
CANDIDATES = ("dynamo", "chat", "groq", "completions", "sglang", "tgi", "triton", "responses", "anthropic")
FOR_ALL = (Outcome.REFUSED, Outcome.TIMEOUT, Outcome.RATE_LIMITED)


def look(specs: Sequence[Target]) -> Iterator[Probe]:
    """What one request to each target shows, in their order; a type that is "auto" is found on the way."""
    known = iter(probe([spec for spec in specs if spec.endpoint_type != AUTO]))
    for spec in specs:
        yield settle(spec) if spec.endpoint_type == AUTO else next(known)


def settle(spec: Target, ask: Callable[[Target], Probe] = lambda spec: probe([spec])[0]) -> Probe:
    """The target by the type that it answers to, said in a note; else the answer that tells most of why not."""
    tried: list[Probe] = []
    kinds: Sequence[str] = CANDIDATES
    while kinds:
        tried.append(ask(replace(spec, endpoint_type=kinds[0])))
        kinds = left(tried[-1], kinds[1:])
    best = max(tried, key=_tells)
    if not best.asked:
        return replace(best, spec=spec)
    if _recognised(best.exchange) or _refused(best.exchange):
        spec = replace(spec, endpoint_type=_kind(best))
    found = judge(spec, best.exchange, best.server)
    return found if found.problem else replace(found, notes=(f"answers as endpoint type {_kind(best)}", *found.notes))


def left(answer: Probe, kinds: Sequence[str]) -> Sequence[str]:
    """Of the types that weren't tried yet, those that an answer leaves possible."""
    spec, exchange = answer.spec, answer.exchange
    if answer.ok or _recognised(exchange) or exchange.status is None or exchange.outcome in FOR_ALL:
        return ()
    if exchange.status in (401, 403):
        keyed = spec.api_key_env or spec.api_key_file
        return [kind for kind in kinds if keyed and _key_header(kind) != _key_header(spec.endpoint_type)]
    return [kind for kind in kinds if not _refused(exchange) or kind == "groq"]


def _recognised(exchange: Exchange) -> bool:
    """Did an answer of status 200 have tokens of the type's own wire format, or its word for a failure?"""
    return exchange.status == 200 and (bool(exchange.token_at) or exchange.outcome is Outcome.HTTP_ERROR)


def _refused(exchange: Exchange) -> bool:
    """Was a field refused by name? One that only Dynamo has says nothing about the others."""
    return refused_field(exchange) not in ("", "nvext")


def _tells(answer: Probe) -> int:
    """How much an answer tells; of equals the first is taken."""
    exchange = answer.exchange
    proven = answer.spec.endpoint_type != "groq" or exchange.server_total is not None
    if _recognised(exchange) and proven:
        return 4
    if _refused(exchange) or exchange.status in (401, 403):
        return 3
    if _recognised(exchange) or exchange.outcome in FOR_ALL:
        return 2
    return 0 if exchange.status in (404, 405) else 1


def _kind(answer: Probe) -> str:
    kind, exchange = answer.spec.endpoint_type, answer.exchange
    one_leg = answer.spec.protocol is None  # of two we name the workers ourselves
    nvext = exchange.server_total is not None or (one_leg and exchange.prefill_worker is not None)
    return "chat" if kind == "dynamo" and not nvext else kind


def _key_header(kind: str) -> str:
    return getattr(WIRES[kind], "KEY_HEADER", "")
