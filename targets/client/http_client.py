"""`HttpTarget`: the streaming client. Connections on the hub's loop, pooled, no cap; each exchange given back once.

Theory of operation. `start` writes the request at once on an idle connection, or on a new one; from then on everything
happens in the loop's callbacks (connection.py). An exchange that is over goes into a queue, and one ordinary greenlet
takes it out and calls `done`, which may therefore block. Time limits are looked at once a tick (deadlines.py), on the
monotonic clock. Names are resolved, keys read and certificates loaded when the target is made: what is wrong with them
is an InputError then, not a failed exchange later.
"""

# ruff: noqa: RET503 - `return self._end(...)` says: and that was it
from __future__ import annotations

import json
import logging
import os
import re
import resource
import ssl
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gevent
from gevent.queue import SimpleQueue

from traces.errors import InputError

from .. import clock as clocks
from ..address import address
from ..clock import Clock
from ..exchange import Exchange, Outcome
from ..target import Call, Target
from ..wire import WIRES
from . import loop, tls
from .connection import Connection, Flight
from .deadlines import Deadlines
from .diagnostics import Diagnostics

log = logging.getLogger(__name__)

AGENT = "phaseload"
SAID = (
    "error", "request_id", "model", "fingerprint", "finish_reason", "service_tier", "region", "ratelimit",
    "prefill_worker", "decode_worker",
)  # fmt: skip
SECRET, BEGINNING = 6, 16  # characters: of the shortest secret that is looked for, of what is found of a long one
SCHEMES = ("bearer", "basic", "digest", "session", "token")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_WORDS = re.compile(r"[\s;,=]+")


class HttpClient:
    """The `Target` of every endpoint that takes one HTTP request an exchange. Raises InputError when made.

    `wire` is a wire format (targets/wire/__init__.py) for an endpoint type that WIRES doesn't have.
    """

    def __init__(
        self, spec: Target, clock: Clock, wire: ModuleType | Any = None, kind: type[Exchange] = Exchange
    ) -> None:
        raise_open_files()
        self.kind = kind
        self.spec, self.clock, self.name = spec, clock, spec.name
        self.wire = wire or _wire(spec)
        self.address = address(spec.url)
        self.preferred = 0
        self.tls = _context(spec) if self.address.scheme == "https" else None
        self._secrets: list[str] = []
        self._head = self._standing_head()
        self._keys = self._secret()
        self.limits = (
            round(spec.limits.connect_s * 1e9),
            round(spec.limits.first_token_s * 1e9),
            round(spec.limits.silence_s * 1e9),
            round(spec.limits.request_s * 1e9),
        )
        self.pulse = loop.pulse()
        self.pulse.listeners[self] = None
        self._deadlines: Deadlines[Connection] = Deadlines(clocks.monotonic_ns())
        self._busy: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._over: SimpleQueue[tuple[Flight | None, Outcome, str]] = SimpleQueue()
        self._courier = gevent.spawn(self._deliver)
        self._closed = False

    @property
    def origin(self) -> int:
        return self.clock.origin

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    # The Target's side.

    def start(self, ask: Call, done: Callable[[Exchange], None]) -> None:
        exchange = self.kind(
            ask.index, self.name, ask.due, ask.prompt_tokens, ask.output_tokens, ask.step, ask.session, ask.turn,
            ask.planned, ask.counted, ask.attempt, started=self.clock.now(),
        )  # fmt: skip
        try:
            path, headers, body = self.wire.request(ask, self.spec)
            reader = self.wire.Reader()
        except Exception as error:
            return self._stillborn(exchange, done, error)
        self.post(exchange, path, headers, body, reader, done, ask.leave_after)

    def post(
        self,
        exchange: Exchange,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        reader: Any,
        done: Callable[[Exchange], None],
        leave_after: int | None = None,
    ) -> None:
        """Sends one request whose body is ready; `reader` reads the answer. For targets made of several exchanges."""
        if exchange.started is None:
            exchange.started = self.clock.now()
        try:
            payload = self.payload(path, headers, body)
            self._carry(Flight(exchange, payload, self.wire, reader, done, leave_after))
        except Exception as error:
            self._stillborn(exchange, done, error)

    def stop(self, outcome: Outcome) -> None:
        """Ends what is open with `outcome`."""
        for connection in list(self._busy):
            connection.stop(outcome, _STOPPED.get(outcome, "stopped"))

    def close(self) -> None:
        """Ends what is open as cut, closes every connection, and returns when each exchange was handed back."""
        if self._closed:
            return
        self._closed = True
        self.stop(Outcome.CUT)
        for connection in list(self._idle):
            connection.close()
        self.pulse.listeners.pop(self, None)
        self._over.put((None, Outcome.OK, ""))
        if gevent.getcurrent() is not self._courier:
            self._courier.join()

    # The connections' side.

    def over(self, flight: Flight, outcome: Outcome, error: str) -> None:
        self._over.put((flight, outcome, error))

    def again(self, flight: Flight) -> None:
        """The kept-alive connection was closed as the request went out: sent once more, on a fresh one."""
        flight.exchange.reconnected, flight.exchange.reused = True, False
        flight.exchange.connected = flight.exchange.sent = flight.exchange.body_sent = None
        self.pulse.reconnected += 1
        self._connect(flight)

    def idle(self, connection: Connection) -> None:
        self._land(connection)
        if self._closed:
            connection.close()
        else:
            self._idle[connection] = None

    def gone(self, connection: Connection) -> None:
        self._land(connection)
        self._idle.pop(connection, None)

    def watch(self, connection: Connection, limit: int) -> None:
        self._deadlines.put(connection, clocks.monotonic_ns() + limit - self.clock.now())

    # The pulse's side.

    def sweep(self) -> None:
        """Looks at the connections whose time has come."""
        now = self.clock.now()
        for connection in self._deadlines.due(clocks.monotonic_ns()):
            limit = connection.look(now)
            if limit is not None:
                self.watch(connection, limit)

    def stepped(self) -> None:
        """The clock was stepped: what is open can't be measured, and its limits count from now."""
        now = self.clock.now()
        for connection in self._busy:
            connection.step(now)
            self.watch(connection, now)

    # Inside.

    def _carry(self, flight: Flight) -> None:
        while self._idle:
            connection, _ = self._idle.popitem()  # the one used last: the least likely to be closed by the server
            if connection.alive():
                self._watch_new(connection)
                return connection.take(flight)
            connection.close()
        self._connect(flight)

    def _connect(self, flight: Flight) -> None:
        connection = Connection(self, flight)
        self._watch_new(connection)
        connection.connect()

    def _land(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self.pulse.streams -= 1
        self._deadlines.drop(connection)

    def _watch_new(self, connection: Connection) -> None:
        self._busy.add(connection)
        self.pulse.opened_stream()
        first = min(self.limits) // len(self.address.sockaddrs)
        self._deadlines.put(connection, clocks.monotonic_ns() + first)

    def _stillborn(self, exchange: Exchange, done: Callable[[Exchange], None], error: Exception) -> None:
        exchange.done = self.clock.now()
        self.pulse.faults += 1
        flight = Flight(exchange, b"", WIRES["chat"], None, done)
        self.over(flight, Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _deliver(self) -> None:
        while True:
            flight, outcome, error = self._over.get()
            if flight is None:
                return
            flight.exchange.outcome, flight.exchange.error = outcome, error
            self.redact(flight.exchange)
            try:
                flight.done(flight.exchange)
            except Exception:
                self.pulse.faults += 1
                log.exception("the callback of request %d failed", flight.exchange.index)
            if not self._over.empty():  # a burst of answers must not hold up what is due
                gevent.sleep(0)

    # The request's bytes.

    def _standing_head(self) -> str:
        """The head's lines that every request has."""
        spec, lines = self.spec, [("Host", self.address.authority), ("User-Agent", AGENT)]
        lines += [("Content-Type", "application/json"), ("Accept", "text/event-stream, application/json")]
        lines += [("Accept-Encoding", "identity")]
        key = _key(spec)
        if key:
            self._secrets.append(key)
            own = getattr(self.wire, "KEY_HEADER", None)
            lines.append((own, key) if own else ("Authorization", f"Bearer {key}"))
        if self.address.proxy == "forward" and self.address.proxy_key:
            lines.append(("Proxy-Authorization", self.address.proxy_key))
        named = [(name, self._filled(name, value)) for name, value in spec.headers]
        replaced = {name.lower() for name, _ in named}
        lines = [(name, value) for name, value in lines if name.lower() not in replaced] + named
        return "".join(_line(name, value) for name, value in lines)

    def _filled(self, name: str, value: str) -> str:
        """A header's value with its ${VARIABLE}s, which are secrets from then on."""

        def fill(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None:
                remedy = "export it on each machine that sends load, and name it in the header as ${VARIABLE}"
                raise InputError(f"header {name}: the environment has no {match[1]}", where=self.name, remedy=remedy)
            self._secrets += {found, *_WORDS.split(found)}  # a server may echo the key without its "Bearer"
            return found

        return _VARIABLE.sub(fill, value)

    def payload(self, path: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
        """One request as it goes onto the wire."""
        own = "".join(_line(name, value) for name, value in headers)
        head = f"POST {self.address.path(path)} HTTP/1.1\r\n{self._head}{own}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1") + body

    def _secret(self) -> re.Pattern[str] | None:
        """Finds this target's keys, and their beginnings where a bound cut them; short words would be everywhere."""
        known = {secret for secret in self._secrets if len(secret) >= SECRET and secret.lower() not in SCHEMES}
        known |= {json.dumps(secret)[1:-1] for secret in known}  # as an error that is JSON has it
        cut = {re.escape(secret[:BEGINNING]) + r"[\w.~+/=-]*" for secret in known if len(secret) > BEGINNING}
        forms = [*sorted(map(re.escape, known), key=len, reverse=True), *sorted(cut)]
        return re.compile("|".join(forms)) if known else None

    def redact(self, exchange: Exchange) -> None:
        """Takes this target's keys out of what the server said."""
        if self._keys is None:
            return
        for name in SAID:
            said = getattr(exchange, name)
            if said:
                setattr(exchange, name, self.clean(said))

    def clean(self, text: str) -> str:
        """The text without this target's keys."""
        return text if self._keys is None else self._keys.sub("***", text)


_STOPPED = {Outcome.CUT: "the run ended first", Outcome.CANCELLED: "cancelled"}


def diagnostics() -> Diagnostics:
    """What this process knows of its own quality: reads with and without kernel time, stalls, CPU, connections, steps.
    Counted since the process's first client was made."""
    return loop.pulse().diagnostics()


def raise_open_files() -> int:
    """Raises the limit of open files to the hard limit, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _wire(spec: Target) -> ModuleType:
    try:
        return WIRES[spec.endpoint_type]
    except KeyError:
        known = ", ".join(WIRES)
        raise InputError(
            f"no endpoint type {spec.endpoint_type!r}", where=spec.name, remedy=f"one of: {known}"
        ) from None


def _context(spec: Target) -> ssl.SSLContext:
    try:
        return tls.context(insecure=spec.insecure, ca_file=spec.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"can't be used as CA file: {error}", where=spec.ca_file or spec.name) from None


def _key(spec: Target) -> str:
    """The API key from its file or variable; "" where the spec names neither."""
    if spec.api_key_file:
        try:
            return Path(spec.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InputError("the API key can't be read", where=spec.api_key_file) from None
    if spec.api_key_env:
        key = os.environ.get(spec.api_key_env, "").strip()
        if not key:
            raise InputError(f"the environment has no {spec.api_key_env}", where=spec.name, remedy="export it")
        return key
    return ""


def _line(name: str, value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or any(c in "\r\n\0" or ord(c) > 255 for c in value):
        raise InputError(f"header {name!r} can't be sent: a line break, or a character beyond Latin-1")
    return f"{name}: {value}\r\n"
