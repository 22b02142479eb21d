"""`type = "auto"`: which endpoint type does a target answer to? One short request a type, until an answer settles it.

Dynamo's request goes first: what answers it with `nvext` is Dynamo, what takes it at all speaks chat. `left` gives what
an answer leaves to be tried: nothing, where it holds for every type (a rate limit, nobody there, a hang) or where its
wire format was recognised, however it ended; after a refused field only Groq, which has it under another name; after a
refused key only those types that send it another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..exchange import Exchange, Outcome
from ..target import AUTO, Target
from ..wire import WIRES
from .probe import Probe, judge, probe_known, refused_field

CANDIDATES = ("dynamo", "chat", "groq", "completions", "sglang", "tgi", "triton", "responses", "anthropic")
FOR_ALL = (Outcome.REFUSED, Outcome.TIMEOUT, Outcome.RATE_LIMITED)


def probe(targets: Sequence[Target]) -> list[Probe]:
    """What one request to each target shows, in their order; a type that is AUTO is found on the way. Needs gevent's
    hub, as every client does."""
    known = iter(probe_known([target for target in targets if target.endpoint_type != AUTO]))
    return [settle(target) if target.endpoint_type == AUTO else next(known) for target in targets]


def settle(target: Target, ask: Callable[[Target], Probe] = lambda target: probe_known([target])[0]) -> Probe:
    """The target by the type that it answers to, which a note names; else the answer that explains most."""
    tried: list[Probe] = []
    kinds: Sequence[str] = CANDIDATES
    while kinds:
        tried.append(ask(replace(target, endpoint_type=kinds[0])))
        kinds = left(tried[-1], kinds[1:])
    best = max(tried, key=_weight)
    if not best.sent:
        return replace(best, target=target)
    if _recognised(best.exchange) or _refused(best.exchange):
        target = replace(target, endpoint_type=_kind(best))
    verdict = judge(target, best.exchange, best.server)
    note = f"answers as endpoint type {_kind(best)}"
    return verdict if verdict.problem else replace(verdict, notes=(note, *verdict.notes))


def left(answer: Probe, kinds: Sequence[str]) -> Sequence[str]:
    """Of the types that weren't tried yet, those that an answer leaves possible."""
    target, exchange = answer.target, answer.exchange
    if answer.ok or _recognised(exchange) or exchange.status is None or exchange.outcome in FOR_ALL:
        return ()
    if exchange.status in (401, 403):
        keyed = target.api_key_env or target.api_key_file
        return [kind for kind in kinds if keyed and _key_header(kind) != _key_header(target.endpoint_type)]
    return [kind for kind in kinds if not _refused(exchange) or kind == "groq"]


def _recognised(exchange: Exchange) -> bool:
    """Did an answer of status 200 have tokens of the type's own wire format, or its word for a failure?"""
    return exchange.status == 200 and (bool(exchange.token_at) or exchange.outcome is Outcome.HTTP_ERROR)


def _refused(exchange: Exchange) -> bool:
    """Was a field refused by name? One that only Dynamo has says nothing about the others."""
    return refused_field(exchange) not in ("", "nvext")


def _weight(answer: Probe) -> int:
    """How much an answer explains; of equals the first is taken."""
    exchange = answer.exchange
    proven = answer.target.endpoint_type != "groq" or exchange.server_total is not None
    if _recognised(exchange) and proven:
        return 4
    if _refused(exchange) or exchange.status in (401, 403):
        return 3
    if _recognised(exchange) or exchange.outcome in FOR_ALL:
        return 2
    return 0 if exchange.status in (404, 405) else 1


def _kind(answer: Probe) -> str:
    kind, exchange = answer.target.endpoint_type, answer.exchange
    one_leg = answer.target.protocol is None  # of two we name the workers ourselves
    nvext = exchange.server_total is not None or (one_leg and exchange.prefill_worker is not None)
    return "chat" if kind == "dynamo" and not nvext else kind


def _key_header(kind: str) -> str:
    return getattr(WIRES[kind], "KEY_HEADER", "")
