"""`HttpClient`: the streaming client. Connections on the hub's loop, pooled, no cap; each exchange given back once.

Theory of operation. `start` writes the request at once on an idle connection, or on a new one; from then on everything
happens in the loop's callbacks (connection.py). An exchange that is over goes into a queue, and one ordinary greenlet
takes it out and calls `done`, which may therefore block. Time limits are looked at once a tick (deadlines.py), on the
monotonic clock. Names are resolved, keys read and certificates loaded when the client is made: what is wrong with them
is an InputError then, not a failed exchange later.
"""

# ruff: noqa: RET503 - `return self._stillborn(...)` ends the method there
from __future__ import annotations

import logging
import resource
from dataclasses import astuple

import gevent
from gevent.queue import SimpleQueue

from traces.request import NS_PER_S

from .. import clock as clocks
from ..address import RequestHead, address, tls_context
from ..clock import Clock
from ..exchange import Call, Diagnostics, Done, Exchange, Outcome
from ..target import Target
from ..wire import Reader
from . import loop
from .connection import Connection, Flight
from .deadlines import Deadlines

log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]
IDLE_NS = 60 * NS_PER_S  # after which a connection isn't used again: something on the way may have forgotten it


class HttpClient:
    """The `Client` of every endpoint that takes one HTTP request an exchange. Raises InputError when made."""

    def __init__(self, target: Target, clock: Clock, *, keep_text: bool = False) -> None:
        raise_open_files()
        self.target = target = target.opened()
        self.clock, self.keep_text = clock, keep_text
        self.wire = target.wire_format()
        self.address = address(target.url)
        self.preferred = 0
        secure = self.address.scheme == "https"
        self.tls = tls_context(insecure=target.insecure, ca_file=target.ca_file) if secure else None
        self.head = RequestHead(target, self.address, self.wire.key_header)
        self.limits, self.resend = target.limits, target.resend
        self.loop = loop.current()
        self.loop.listeners[self] = None
        self._shortest = round(min(astuple(self.limits)) * NS_PER_S)
        self._deadlines: Deadlines[Connection] = Deadlines(clocks.monotonic_ns())
        self._busy: set[Connection] = set()
        self._idle: dict[Connection, int] = {}  # since when, monotonic
        self._over: SimpleQueue[tuple[Flight | None, Outcome, str]] = SimpleQueue()
        self._courier = gevent.spawn(self._deliver)
        self._closed = False

    # The `Client` protocol.

    def start(self, call: Call, done: Done) -> None:
        exchange = Exchange(call, started=self.clock.now(), text=[] if self.keep_text else None)
        try:
            path, headers, body = self.wire.request(call, self.target)
            reader = self.wire.reader()
        except Exception as error:
            return self._stillborn(exchange, done, error)
        self.post(exchange, path, headers, body, reader, done)

    def post(self, exchange: Exchange, path: str, headers: Headers, body: bytes, reader: Reader, done: Done) -> None:
        """Sends one request whose body is ready; `reader` reads the answer. For clients of several exchanges a call."""
        if exchange.started is None:
            exchange.started = self.clock.now()
        try:
            self._carry(Flight(exchange, self.head.payload(path, headers, body), reader, done))
        except Exception as error:
            self._stillborn(exchange, done, error)

    def stop(self, outcome: Outcome) -> None:
        """Ends what is open with `outcome`."""
        for connection in list(self._busy):
            connection.stop(outcome, _STOPPED.get(outcome, "stopped"))

    def renew(self, clock: Clock) -> None:
        """For another run of this process, on the connections of the last; nothing may be open."""
        self.clock = clock

    def close(self) -> None:
        """Ends what is open as cut, closes every connection, and returns when each exchange was handed back."""
        if self._closed:
            return
        self._closed = True
        self.stop(Outcome.CUT)
        for connection in list(self._idle):
            connection.close()
        self.loop.listeners.pop(self, None)
        self._over.put((None, Outcome.OK, ""))
        if gevent.getcurrent() is not self._courier:
            self._courier.join()

    # For the connections: `connection.Owner`.

    def over(self, flight: Flight, outcome: Outcome, error: str) -> None:
        self._over.put((flight, outcome, error))

    def again(self, flight: Flight) -> None:
        """The kept-alive connection was closed before the request came: sent once more, on a fresh one."""
        flight.exchange.reconnected, flight.exchange.reused = True, False
        flight.exchange.connected = flight.exchange.sent = flight.exchange.body_sent = None
        self.loop.reconnected += 1
        self._connect(flight)

    def idle(self, connection: Connection) -> None:
        self._land(connection)
        if self._closed:
            connection.close()
        else:
            self._idle[connection] = clocks.monotonic_ns()

    def gone(self, connection: Connection) -> None:
        self._land(connection)
        self._idle.pop(connection, None)

    def watch(self, connection: Connection, limit: int) -> None:
        self._deadlines.put(connection, clocks.monotonic_ns() + limit - self.clock.now())

    # For the loop: `loop.Listener`.

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
            connection, since = self._idle.popitem()  # the one used last: the least likely to be closed by the server
            if clocks.monotonic_ns() - since < IDLE_NS and connection.alive():
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
            self.loop.streams -= 1
        self._deadlines.drop(connection)

    def _watch_new(self, connection: Connection) -> None:
        self._busy.add(connection)
        self.loop.streams += 1
        self.loop.most_streams = max(self.loop.most_streams, self.loop.streams)
        self._deadlines.put(connection, clocks.monotonic_ns() + self._shortest // len(self.address.sockaddrs))

    def _stillborn(self, exchange: Exchange, done: Done, error: Exception) -> None:
        exchange.done = self.clock.now()
        self.loop.internal_faults += 1
        self.over(Flight(exchange, b"", Reader(), done), Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _deliver(self) -> None:
        while True:
            flight, outcome, error = self._over.get()
            if flight is None:
                return
            flight.exchange.outcome, flight.exchange.error = outcome, error
            self.head.redact(flight.exchange)
            try:
                flight.done(flight.exchange)
            except Exception:
                self.loop.internal_faults += 1
                log.exception("the callback of request %d failed", flight.exchange.index)
            if not self._over.empty():  # a burst of answers must not hold up what is due
                gevent.sleep(0)


_STOPPED = {Outcome.CUT: "the run ended first", Outcome.CANCELLED: "cancelled"}


def diagnostics() -> Diagnostics:
    """What this process knows of its own quality: reads with and without kernel time, stalls, CPU, connections, steps.
    Counted since the process's first client was made."""
    return loop.current().diagnostics()


def raise_open_files() -> int:
    """Raises the limit of open files to the hard limit, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
