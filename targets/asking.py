"""Fixed prompts, asked one after the other and outside a run: what does the model behind a name answer?

`ask` sends them through the target's own client, at temperature 0 where its endpoint type has that field, and each
alone, so that no other request of ours shares a batch with it. Where a target is known to admit so many requests or
tokens a minute (by targets.toml or by its answers), they keep within that. What a server refuses for its rate is asked
again when the server says so, within PATIENCE; a target that doesn't answer costs no more than GIVE_UP requests. Needs
gevent's hub, as every client does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import gevent
import orjson
from gevent.event import AsyncResult
from gevent.pool import Pool

from traces.errors import InputError
from traces.request import Request

from . import quota
from .client.disaggregated import connect
from .clock import Clock
from .exchange import Call, Client, Exchange, Outcome
from .quota import Limit
from .target import Target
from .wire.interface import Json, merged

PATIENCE = 60.0  # seconds: until the first token, and of waiting for a rate limit, for each target
PAUSE = 2.0  # seconds until what was refused for its rate is asked again, where the server names no time
SHORTEST = 0.5  # of such pauses
GIVE_UP = 3  # failures in a row
AT_ONCE = 4  # targets
# Where an endpoint type has the temperature. TGI decodes greedily unless it is asked not to, and refuses 0; a Triton
# model refuses inputs that it doesn't have; what a custom format's server takes is its user's to know.
ZERO: Json = {"temperature": 0}
GREEDY: dict[str, Json] = {
    **dict.fromkeys(("chat", "completions", "groq", "dynamo", "responses", "anthropic"), ZERO),
    "sglang": {"sampling_params": ZERO},
}


@dataclass(frozen=True)
class Answer:
    """What became of one prompt; `text` is None where there is no whole answer."""

    exchange: Exchange
    text: str | None


def ask_all(targets: Sequence[Target], prompts: Sequence[str], tokens: int) -> list[list[Answer]]:
    """`ask` of several targets, a few side by side."""
    return list(Pool(AT_ONCE).map(lambda target: ask(target, prompts, tokens), targets))


def ask(target: Target, prompts: Sequence[str], tokens: int) -> list[Answer]:
    """The answers, of at most so many tokens, in the prompts' order; fewer than prompts where the target was given up.
    None at all where no client can be made for it: what is wrong with it is the probe's to say."""
    own = target.limits
    limits = replace(own, first_token_timeout=min(own.first_token_timeout, PATIENCE))
    answers: list[Answer] = []
    for fields in (GREEDY.get(target.endpoint_type, {}), {}):
        try:
            asked = replace(target, limits=limits, extra_body=merged(target.extra_body, fields))
            client = connect(asked, Clock(), keep_text=True)
        except InputError:
            return []
        try:
            answers = _answers(client, target, prompts, tokens)
        finally:
            client.close()
        refused = answers and "temperature" in answers[0].exchange.error
        if not refused:  # else as the server would have it: its answers may differ by themselves, which is measured
            break
    return answers


def limits_of(target: Target, answers: Sequence[Answer]) -> list[Limit]:
    """What the target is known to admit, the last answer's headers told."""
    headers = next((each.exchange.ratelimit for each in reversed(answers) if each.exchange.ratelimit), None)
    return quota.limits(target, orjson.loads(headers) if headers else {})


def amount(kind: str, prompt: int, output: int) -> int:
    """What a request of so many tokens takes of a limit of this kind."""
    return {"requests": 1, "tokens": prompt + output, "input tokens": prompt, "output tokens": output}[kind]


def _gap(limits: Sequence[Limit], prompt: int, output: int) -> float:
    """Seconds between two requests that keep within what is admitted in a minute; PATIENCE at most, for a limit that
    admits not even one of them would have us wait for hours."""
    minutes = [limit for limit in limits if limit.period == "minute"]
    gaps = (60 * amount(limit.kind, prompt, output) / limit.most for limit in minutes)
    return min(PATIENCE, max(gaps, default=0.0))


def _pause(refused: Exchange) -> float:
    """Seconds until it is asked again: as the server says, but no flood where it says next to nothing."""
    return max(SHORTEST, refused.retry_after or PAUSE)


def _answers(client: Client, target: Target, prompts: Sequence[str], tokens: int) -> list[Answer]:
    answers: list[Answer] = []
    patience = PATIENCE
    for number, prompt in enumerate(prompts):
        request = Request(number, 0, len(prompt.split()), tokens)
        call = Call(request=request, target=target.name, due=0, prompt=prompt, counted=False)
        if answers:
            gevent.sleep(_gap(limits_of(target, answers), request.prompt_tokens, tokens))
        exchange = _exchange(client, call)
        while exchange.outcome is Outcome.RATE_LIMITED and (pause := _pause(exchange)) <= patience:
            patience -= pause
            gevent.sleep(pause)
            exchange = _exchange(client, call)
        answers.append(Answer(exchange, exchange.take_text() if exchange.ok else None))
        if _hopeless([answer.exchange for answer in answers]):
            break
    return answers


def _hopeless(exchanges: Sequence[Exchange]) -> bool:
    """Will the target answer none of them?"""
    refused = exchanges[-1].outcome is Outcome.HTTP_ERROR and 400 <= (exchanges[-1].status or 0) < 500
    recent = exchanges[-GIVE_UP:]
    return refused or (len(recent) == GIVE_UP and not any(exchange.ok for exchange in recent))


def _exchange(client: Client, call: Call) -> Exchange:
    finished: AsyncResult[Exchange] = AsyncResult()
    client.start(call, finished.set)
    exchange = finished.get()
    assert exchange is not None
    return exchange
