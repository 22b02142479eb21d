"""One request before the run: do the URL, the key, the model, streaming and token counting work?

`probe_known` sends a short request through the target's own client, so what it finds is what the run will meet. Its
`problem` is a reason not to start (one line with the remedy), its `notes` say how tokens will be counted, which phases
the server reports and what it limits. A target for which no client can be made (a name that doesn't resolve, a key or a
certificate that can't be read) has that as its problem; the others get their request all the same. Needs gevent's hub,
as every client does.

Of two legs each server of both pools gets one, whatever prompts a run would send straight to decode; what one of them
lacks is the target's problem, and names that server.

Tokens that one read brought may have come one by one while this process was busy. What is known is the bracket: they
came between the last poll before the read and the read. Only where this is short is the server to blame; else it is
probed once more, with nobody beside it, and what is still unsure is a note, no reason not to start.

`type = "auto"`: which endpoint type does a target answer to? One short request a type, until an answer settles it
(docs/protocols.md, "The probe"). Dynamo's request goes first: what answers it with `nvext` is Dynamo, what takes it at
all speaks chat. `left` gives what an answer leaves to be tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import orjson
from gevent.event import AsyncResult
from gevent.pool import Pool

from traces.errors import InputError
from traces.request import Request
from traces.trace import NS_PER_MS

from .address import RequestHead, address, tls_context
from .client import blocking, loop
from .client.disaggregated import PREFILL, connect
from .client.http import HttpError
from .clock import Clock
from .exchange import Call, Exchange, Outcome
from .rules import port, split
from .target import AUTO, Target
from .wire import WIRES, WireError, lenient

PROMPT = "Count upwards from one in words, one word after the other, and don't stop: one two three four five six"
TOKENS = 16
ENDLESS = 256 * TOKENS  # events, after which we leave: a server may send one for each character of its tokens
SCHEMES = {"http": "https", "https": "http"}
LISTING = 5.0  # seconds that a list of models may take
HANDSHAKE = 2.0  # seconds that a look at the other scheme may take
PATIENCE = 60.0  # seconds until the first token: the first request of a cold server may take long
AT_ONCE = 4  # targets: more would stall each other
CLOSE = 0.1  # share of the wait for them within which tokens came that can't have been apart
PHASES = ("queue", "prefill", "transfer", "decode")
EOS = "set ignore_eos = false (--heed-eos)"
FIELDS = {  # of ours that some servers refuse, and what to do
    "ignore_eos": f"it doesn't know ignore_eos: {EOS}",
    "min_tokens": f"it doesn't know min_tokens: {EOS}",
    "stream_options": 'it takes no stream_options: set omit = ["stream_options"] (null in --extra-body)',
    "max_tokens": 'it takes no max_tokens: set extra_body = { max_completion_tokens = "{output_tokens}" }',
    "nvext": "it takes no nvext: choose endpoint type chat",
}
FAILURES = {  # statuses of a server's own failures, and what they mean
    500: "its own log says why",
    502: "the server behind it fails: is it up, and does this path lead to it?",
    503: "is it still starting, overloaded, or without a server behind it?",
    504: "the server behind it doesn't answer: is it up, or overloaded?",
}
REASONS = {
    Outcome.REFUSED: "can't be reached",
    Outcome.TIMEOUT: "didn't answer in time",
    Outcome.STALLED: "stopped in the middle of its answer",
    Outcome.TRUNCATED: "cut its answer short",
    Outcome.MALFORMED: "doesn't speak this endpoint type",
    Outcome.CANCELLED: f"goes on after the {TOKENS} tokens that it was asked for",
    Outcome.RATE_LIMITED: "refuses even one request for its rate limit",
}
CANDIDATES = ("dynamo", "chat", "groq", "completions", "sglang", "tgi", "triton", "responses", "anthropic")
FOR_ALL = (Outcome.REFUSED, Outcome.TIMEOUT, Outcome.RATE_LIMITED)


@dataclass(frozen=True)
class Probe:
    """What one request showed."""

    target: Target
    exchange: Exchange
    problem: str = ""
    notes: tuple[str, ...] = ()
    server: str = ""  # that the problem is with
    certain: bool = False  # what is known of the server besides leaves no doubt of the problem

    @property
    def sent(self) -> bool:
        """Did a request go out at all?"""
        return self.exchange.started is not None

    @property
    def ok(self) -> bool:
        """Can the target be measured, as far as one request shows it?"""
        return not self.problem

    @property
    def hopeless(self) -> bool:
        """Will every request of a run meet the same problem? Else it may pass, and a run counts it."""
        refused = self.exchange.outcome is Outcome.HTTP_ERROR and 300 <= (self.exchange.status or 0) < 500
        return not self.ok and (self.certain or refused or self.exchange.outcome in (Outcome.OK, Outcome.REFUSED))


def probe(targets: Sequence[Target]) -> list[Probe]:
    """What one request to each target shows, in their order; a type that is AUTO is found on the way."""
    known = iter(probe_known([target for target in targets if target.endpoint_type != AUTO]))
    return [settle(target) if target.endpoint_type == AUTO else next(known) for target in targets]


def probe_known(targets: Sequence[Target]) -> list[Probe]:
    """The same for targets of a known type, a few at a time; one more request to one that may not stream."""
    servers = [list(_servers(target)) for target in targets]
    answers = iter(Pool(AT_ONCE).map(_probe, chain.from_iterable(servers)))
    surely = map(_looked_at_again, answers)
    return [_of_all(target, list(islice(surely, len(each)))) for target, each in zip(targets, servers, strict=True)]


def _servers(target: Target) -> Iterator[Target]:
    """A target itself, or pairs of one prefill and one decode server, so few that each server is in one."""
    if not target.protocol:
        yield target
        return
    for number in range(max(len(target.prefill), len(target.decode))):
        prefill, decode = (pool[number % len(pool)] for pool in (target.prefill, target.decode))
        yield replace(target, url=decode, prefill=(prefill,), decode=(decode,), local_prefill_below=0)


def _looked_at_again(answer: Probe) -> Probe:
    """The answer of one more request, where it is unsure whether the server streams; and where no HTTP came back, or a
    complaint about https, whether the server speaks the other scheme at this port."""
    exchange, (server, url) = answer.exchange, _server(answer.target, answer.exchange)
    if _unsure(exchange):
        return _probe(answer.target)
    silent = exchange.status is None and answer.sent and "certificate" not in exchange.error
    if not silent and not (exchange.status == 400 and "https" in exchange.error.lower()):
        return answer
    parts = split(url)
    if parts.scheme not in SCHEMES:
        return answer
    netloc = parts.netloc if parts.port else f"{parts.netloc}:{port(parts)}"
    other = f"{SCHEMES[parts.scheme]}://{netloc}{parts.path}"
    if not blocking.speaks(other, HANDSHAKE):
        return answer
    return replace(answer, problem=f"{server} doesn't speak {parts.scheme} at this port: give {other}", certain=True)


def _of_all(target: Target, answers: Sequence[Probe]) -> Probe:
    """The worst answer of a target's servers, with the problems of all, or their notes."""
    worst = min(answers, key=lambda answer: (not answer.hopeless, answer.ok))
    problem = "; ".join(dict.fromkeys(answer.problem for answer in answers if answer.problem))
    notes = () if problem else tuple(dict.fromkeys(note for answer in answers for note in answer.notes))
    return replace(worst, target=target, problem=problem, notes=notes)


def _probe(target: Target) -> Probe:
    try:
        exchange = _exchange(target)
    except InputError as error:
        call = Call(request=Request(0, 0, 0, 0), target=target.name, due=0)
        never = Exchange(call, outcome=Outcome.REFUSED, error=str(error))
        return Probe(target, never, str(error))
    return judge(target, exchange, _server(target, exchange)[0])


def _server(target: Target, exchange: Exchange) -> tuple[str, str]:
    """The server whose problem it would be, in words, and its URL."""
    if target.protocol is None:
        return target.url, target.url
    leg, pool = ("prefill", target.prefill) if exchange.error.startswith(PREFILL) else ("decode", target.decode)
    return f"{leg} server {pool[0]}", pool[0]


def _exchange(target: Target) -> Exchange:
    """One request to the target, to its end. Raises InputError where no client can be made for it."""
    loop.current().poll_often()
    own = target.limits
    first_token_s, request_s = min(own.first_token_timeout, PATIENCE), min(own.request_timeout, 2 * PATIENCE)
    limits = replace(own, first_token_timeout=first_token_s, request_timeout=request_s)
    client = connect(replace(target, limits=limits), Clock())
    request = Request(0, 0, len(PROMPT.split()), TOKENS)
    call = Call(request=request, target=target.name, due=0, prompt=PROMPT, counted=False, leave_after=ENDLESS)
    finished: AsyncResult[Exchange] = AsyncResult()
    try:
        client.start(call, finished.set)
        exchange = finished.get()
        assert exchange is not None
    finally:
        client.close()
    return exchange


def judge(target: Target, exchange: Exchange, server: str = "") -> Probe:
    """What a probe's exchange means; `server` answered it, or failed to (default: the target's URL). Pure."""
    server = server or target.url
    problem = _problem(target, exchange, server)
    return Probe(target, exchange, problem, () if problem else tuple(_notes(target, exchange)), server)


def _problem(target: Target, exchange: Exchange, server: str) -> str:
    error = exchange.error.removeprefix(PREFILL).removeprefix(f"{exchange.status}: ")
    detail = f": {error}" if error else ""
    match exchange.outcome, exchange.status:
        case Outcome.OK, _:
            return _unusable(exchange, server)
        case Outcome.HTTP_ERROR, 401 | 403:
            key = target.api_key_env or target.api_key_file
            remedy = f"is the key in {key} still good?" if key else "name a key with --api-key-env"
            return f"{server} asks for another key (HTTP {exchange.status}{detail}); {remedy}"
        case Outcome.HTTP_ERROR, 404 | 405:
            remedy = f"check model {target.model!r} and endpoint type {target.endpoint_type!r}"
            return f"{server} has no such model or path (HTTP {exchange.status}{detail}); {remedy}"
        case Outcome.HTTP_ERROR, 200:
            return f"{server} reports a failure inside its answer{detail}"
        case Outcome.HTTP_ERROR, status if 300 <= (status or 0) < 400:
            return f"{server} sends requests elsewhere (HTTP {status}{detail}); give the URL that answers them itself"
        case Outcome.HTTP_ERROR, status if (status or 0) >= 500:
            return f"{server} fails (HTTP {status}{detail}); it may pass: {FAILURES.get(status or 0, FAILURES[500])}"
        case Outcome.HTTP_ERROR, status:
            remedy = FIELDS.get(refused_field(exchange), "check the endpoint type and extra_body")
            return f"{server} refuses the request (HTTP {status}{detail}); {remedy}"
        case outcome, _:
            return f"{server} {REASONS.get(outcome, str(outcome))}{detail}"


def refused_field(exchange: Exchange) -> str:
    """The field of ours that a server refused the request for, by its name; empty where it named none."""
    error = exchange.error
    if exchange.outcome is not Outcome.HTTP_ERROR or exchange.status not in (400, 422) or "context length" in error:
        return ""
    return next((field for field in FIELDS if re.search(rf"\b{field}\b", error)), "")


def _unusable(exchange: Exchange, server: str) -> str:
    if not exchange.token_at:
        return f"{server} answered without a single token"
    if exchange.whole:
        return f"{server} doesn't stream: it answered with one JSON document, which has no TTFT and no TPOT"
    if _together(exchange) and not _unsure(exchange):
        effect = "so that TTFT and TPOT can't be told apart; is there a buffering proxy in between?"
        return f"{server} doesn't stream: {_count(exchange)} tokens came at once, {effect}"
    return ""


def _count(exchange: Exchange) -> int:
    """Tokens given, as far as it is known: without usage there may be more than one in an event."""
    return max(exchange.usage_output or 0, sum(exchange.token_events))


def _together(exchange: Exchange) -> bool:
    return len(exchange.token_at) == 1 and _count(exchange) > 1 and not exchange.whole


def _unsure(exchange: Exchange) -> bool:
    """Tokens came in one read: can they have been apart?"""
    if not (exchange.ok and _together(exchange)):
        return False
    read, sent = exchange.token_at[0], exchange.sent or 0
    after = sent if exchange.first_after is None else exchange.first_after
    return read - after > CLOSE * (read - sent)


def _notes(target: Target, exchange: Exchange) -> Iterator[str]:
    if target.model and exchange.model and exchange.model != target.model:
        yield f"answers as model {exchange.model!r}, asked was {target.model!r}"
    if _together(exchange):
        took = f"{((exchange.first_token or 0) - (exchange.sent or 0)) / NS_PER_MS:.3g} ms after the request"
        why = "it was too fast to tell, or this machine too busy"
        yield f"may not stream: {_count(exchange)} tokens were read at once, {took}; {why}"
    if exchange.unterminated:
        yield "ends its answers with a finish reason alone, without the format's terminator: taken as complete"
    if exchange.usage_output is None:
        yield "sends no usage: tokens are counted as chunks, or by a tokenizer.json of yours"
    elif exchange.usage_output < TOKENS:
        yield f"gave {exchange.usage_output} of {TOKENS} tokens: output length isn't held (no ignore_eos here)"
    elif exchange.usage_output != sum(exchange.token_events):
        yield f"{sum(exchange.token_events)} chunks carried {exchange.usage_output} tokens: usage is what counts"
    reported = [phase for phase in PHASES if getattr(exchange, f"server_{phase}") is not None]
    yield f"reports {', '.join(reported)}" if reported else "reports no phases of its own"
    limits = orjson.loads(exchange.ratelimit) if exchange.ratelimit else {}
    if named := lenient.rate_limits(limits):
        yield "limits: " + ", ".join(f"{limit} {kind}" for kind, limit in named.items())


def with_model(target: Target) -> tuple[Target, str]:
    """The target with its server's model, where the user names none and the server lists one; and a note where it lists
    any. A server that can't say is left to the probe. Raises InputError where no request can be made."""
    wire = WIRES.get("chat" if target.endpoint_type == AUTO else target.endpoint_type)
    base, v1, _ = wire.path.partition("/v1/") if wire else ("", "", "")
    if wire is None or not v1 or target.model:
        return target, ""
    opened = target.opened()
    where = address(opened.url)
    head = RequestHead(opened, where, wire.key_header)
    payload = head.payload(f"{base}/v1/models", [*wire.headers, ("Connection", "close")], b"", "GET")
    try:
        context = tls_context(insecure=target.insecure, ca_file=opened.ca_file) if where.scheme == "https" else None
        response, answer = blocking.exchange(where, payload, blocking.Within(LISTING), context)
        listed = lenient.mappings(lenient.load(answer).get("data")) if response.status == 200 else []
    except (OSError, HttpError, WireError):
        listed = []
    models = [head.clean(name) for each in listed if (name := lenient.name(each.get("id")))]
    if len(models) == 1:
        return replace(target, model=models[0]), f"asks for model {models[0]!r}, the only one of {target.url}"
    return target, f"no model is named (-m), and {target.url} has {', '.join(models[:8])}" if models else ""


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
    """Of the types that weren't tried yet, those that an answer leaves possible: none, where it holds for every type (a
    rate limit, nobody there, a hang) or its wire format was recognised, however it ended."""
    target, exchange = answer.target, answer.exchange
    if answer.ok or _recognised(exchange) or exchange.status is None or exchange.outcome in FOR_ALL:
        return ()
    if exchange.status in (401, 403):
        keyed = target.api_key_env or target.api_key_file
        own = WIRES[target.endpoint_type].key_header
        return [kind for kind in kinds if keyed and WIRES[kind].key_header != own]
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
