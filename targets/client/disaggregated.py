"""`DisaggregatedClient`: a disaggregated exchange that the client drives itself, prefill first or both legs at once.
`connect`: the client of a target, on one leg or two.

Theory of operation. Each server of the two pools has an `HttpClient`: both legs are timed like any exchange. The
prefill leg has an Exchange of its own, of which three instants and the cached tokens are kept; the decode leg runs on
the exchange that is handed back. Then `sent` becomes the instant of the first leg, so that TTFT is what a user behind a
proxy would wait, and

    prefill_sent ... prefill_done   prefill, as its server answered it (queue included)
    prefill_done ... decode_sent    our own hand-over, the part of a proxy (sequential protocols)
    decode_sent  ... first token    the KV transfer, decode's queue and its first step

are measured, not inferred. Pools go round robin, and decode's moves on by one more whenever both are through, so that
every pair is used. A prompt shorter than `local_prefill_below` tokens goes straight to decode, which then prefills it
too: such an exchange has a decode leg only. One leg's failure is the exchange's. What ties the legs together is in
targets/wire/protocols.py.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from urllib.parse import urlsplit

import gevent
import orjson

from traces.errors import InputError

from ..clock import Clock
from ..exchange import Call, Done, Exchange, Outcome
from ..target import Target
from ..wire import Reader, WireError, lenient, openai
from ..wire.interface import Json
from ..wire.protocols import PROTOCOLS, Leg, Pair
from .blocking import get
from .http import HttpError
from .http_client import HttpClient

PREFILL = "prefill: "  # begins the error of an exchange that failed for its prefill leg


def connect(target: Target, clock: Clock, *, keep_text: bool = False) -> HttpClient | DisaggregatedClient:
    """The client of a target: for two legs or for one, with a known wire format or a user's own. Raises InputError.

    `keep_text`: exchanges keep their answers' text until it is taken (`Exchange.take_text`)."""
    return (HttpClient if target.protocol is None else DisaggregatedClient)(target, clock, keep_text=keep_text)


class DisaggregatedClient:
    """The `Client` of a prefill pool and a decode pool. Raises InputError when made."""

    def __init__(self, target: Target, clock: Clock, *, keep_text: bool = False) -> None:
        assert target.protocol is not None
        self.target, self.clock, self.keep_text = target, clock, keep_text
        self.protocol = PROTOCOLS[target.protocol]
        self.prefill = [HttpClient(replace(target, url=url), clock) for url in target.prefill]
        self.decode = [HttpClient(replace(target, url=url), clock, keep_text=keep_text) for url in target.decode]
        self._engines = [_engine(target, url) for url in target.prefill] if target.protocol == "mooncake" else []
        self._local = self._prefilled = 0  # exchanges so far, for the round robins
        self._in_step = math.lcm(len(self.prefill), len(self.decode))  # pairs that two plain round robins would make
        self._handing: set[TwoLegs] = set()  # those whose decode leg isn't out yet

    def start(self, call: Call, done: Done) -> None:
        if call.request.prompt_tokens < self.target.local_prefill_below:
            return self._start_locally(call, done)
        number, self._prefilled = self._prefilled, self._prefilled + 1
        turn = number % len(self.prefill)
        engine = self._engines[turn] if self._engines else ""
        decode = self.decode[(number + number // self._in_step) % len(self.decode)]
        legs = TwoLegs(self, call, done, self.prefill[turn], decode, engine)
        try:
            legs.start()
        except Exception as error:
            gevent.spawn(legs.fail, error)
        return None

    def _start_locally(self, call: Call, done: Done) -> None:
        decode = self.decode[self._local % len(self.decode)]
        self._local += 1

        def over(exchange: Exchange) -> None:
            exchange.decode_sent, exchange.decode_worker = exchange.sent, urlsplit(decode.target.url).netloc
            done(exchange)

        decode.start(call, over)

    def stop(self, outcome: Outcome) -> None:
        for legs in self._handing:
            legs.stopped = outcome
        for client in (*self.prefill, *self.decode):
            client.stop(outcome)

    def renew(self, clock: Clock) -> None:
        """As `HttpClient.renew`."""
        self.clock = clock
        for client in (*self.prefill, *self.decode):
            client.renew(clock)

    def close(self) -> None:
        """Prefill first: what it ends hands nothing over any more, and decode's ends are the last."""
        for legs in self._handing:
            legs.stopped = Outcome.CUT
        for client in (*self.prefill, *self.decode):
            client.close()


class TwoLegs:
    """One exchange on its two legs."""

    def __init__(
        self, owner: DisaggregatedClient, call: Call, done: Done, prefill: HttpClient, decode: HttpClient, engine: str
    ) -> None:
        self.owner, self.done, self.prefill, self.decode = owner, done, prefill, decode
        self.pair = Pair(prefill.target.url, decode.target.url, uuid.uuid4().hex, engine, owner.target.labels)
        self.stopped: Outcome | None = None
        self.exchange = Exchange(call, started=owner.clock.now(), text=[] if owner.keep_text else None)
        self.exchange.prefill_worker = urlsplit(self.pair.prefill).netloc
        self.exchange.decode_worker = urlsplit(self.pair.decode).netloc
        self.first = Exchange(replace(call, leave_after=None))  # the prefill leg
        self.answer = PrefillReader()
        self._waiting_for = 2 if owner.protocol.concurrent else 1
        self._body: Json = {}

    def start(self) -> None:
        self.owner._handing.add(self)
        self._body = self.decode.wire.body(self.exchange.call, self.decode.target)
        concurrent = self.owner.protocol.concurrent
        leg = self.owner.protocol.prefill(self._body, self.pair)
        self._post(self.prefill, self.first, leg, self.answer, self._one_over if concurrent else self._prefilled)
        if concurrent:
            self._decode(None)

    def _post(self, client: HttpClient, exchange: Exchange, leg: Leg, reader: Reader, done: Done) -> None:
        wire, (body, headers) = client.wire, leg
        path, standing = wire.path_for(client.target), wire.headers
        client.post(exchange, path, [*standing, *headers], orjson.dumps(body), reader, done)

    def _prefilled(self, first: Exchange) -> None:
        """The prefill leg is over, and the decode leg may go out."""
        try:
            if first.outcome is not Outcome.OK:
                self._finish(first.outcome, PREFILL + first.error)
            elif self.stopped is not None:
                self._finish(self.stopped, "ended between prefill and decode")
            else:
                self._decode(self.answer.body)
        except WireError as error:
            self._finish(error.outcome, PREFILL + str(error))
        except Exception as error:  # a fault of ours must not leave the exchange open for ever
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self._finish(Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _decode(self, prefilled: Json | None) -> None:
        leg = self.owner.protocol.decode(self._body, self.pair, prefilled)
        if leg is None:
            return self._answered_by_prefill()
        self.owner._handing.discard(self)
        return self._post(self.decode, self.exchange, leg, self.decode.wire.reader(), self._one_over)

    def _one_over(self, _: Exchange) -> None:
        """A concurrent prefill leg must be over, too, before its instants are known."""
        self._waiting_for -= 1
        if self._waiting_for:
            return
        exchange, first = self.exchange, self.first
        exchange.decode_sent = exchange.sent
        if first.outcome is Outcome.OK or not self.owner.protocol.concurrent:
            self._finish(exchange.outcome, exchange.error)
        elif exchange.outcome is Outcome.OK:  # decode made up its own KV, or did without
            exchange.status, exchange.retry_after = first.status, first.retry_after
            self._finish(first.outcome, PREFILL + first.error)
        else:
            self._finish(exchange.outcome, f"{exchange.error}; prefill: {first.error}")

    def _answered_by_prefill(self) -> None:
        """TensorRT-LLM's context server finished the request: its one token is the answer."""
        exchange, first = self.exchange, self.first
        openai.note(self.answer.body, lenient.mappings(self.answer.body.get("choices")), exchange)
        exchange.status, exchange.headers_at, exchange.done = first.status, first.headers_at, first.done
        assert first.done is not None
        exchange.token_at.append(first.done)
        exchange.token_events.append(1)
        self._finish(Outcome.OK, "")

    def _finish(self, outcome: Outcome, error: str) -> None:
        exchange, first = self.exchange, self.first
        self.owner._handing.discard(self)
        exchange.outcome, exchange.error = outcome, error
        self.prefill.head.redact(exchange)
        exchange.prefill_sent = first.sent
        if first.sent is not None and (exchange.sent is None or first.sent < exchange.sent):
            exchange.sent, exchange.connected = first.sent, first.connected
            exchange.body_sent, exchange.reused = first.body_sent, first.reused
        exchange.usage_cached = first.usage_cached  # decode counts what it fetched as cached
        if first.outcome is Outcome.OK:
            exchange.prefill_done = first.done
        if exchange.done is None:
            exchange.done, exchange.status, exchange.retry_after = first.done, first.status, first.retry_after
        exchange.stepped = exchange.stepped or first.stepped
        exchange.reconnected = exchange.reconnected or first.reconnected
        self.done(exchange)


class PrefillReader(Reader):
    """Reads prefill's answer: a whole JSON object, or (SGLang) a stream that nobody needs."""

    def __init__(self) -> None:
        self.body: Json = {}

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == openai.DONE:
            self.finished = True
            return 0
        data = lenient.load(event)
        if data.get("error") or name == "error":
            raise lenient.failure(data)
        openai.note(data, [], exchange)
        exchange.usage_cached = lenient.count(lenient.mapping(data.get("meta_info")).get("cached_tokens"))
        return 1

    def answer(self, body: bytes, exchange: Exchange) -> int:
        self.body = lenient.sound(body)
        openai.note(self.body, [], exchange)
        self.finished = True
        return 1


def _engine(target: Target, url: str) -> str:
    """Mooncake: the name of a prefill server's engine, as its bootstrap server gives it (or the target's label)."""
    if "remote_engine_id" in target.labels:
        return target.labels["remote_engine_id"]
    host, port = Pair(url, url, "", "", target.labels).bootstrap
    query, why = f"http://{host}:{port}/query", "its answer names none"
    try:
        engines = lenient.load(get(query, target.limits.connect_timeout))
        if engine := lenient.name(lenient.mapping(engines.get("0")).get("engine_id")):
            return engine
    except (OSError, HttpError, InputError, WireError) as error:
        why = str(error)
    remedy = "set labels = { bootstrap_port = ..., remote_engine_id = ... }"
    raise InputError(f"no engine id at {query}: {lenient.line(why)}", where=target.name, remedy=remedy)
