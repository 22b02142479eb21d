"""One connection of the streaming client and the exchange that it carries: callbacks on the hub's loop.

Theory of operation. Every method here runs in the hub (or in the greenlet that starts an exchange) and never blocks or
switches. A read watcher lives as long as the socket; its callback calls `recvmsg`, which brings the bytes together with
the kernel's receive time (SO_TIMESTAMPNS, CLOCK_REALTIME). So an instant is right however late the callback runs. The
kernel merges what waits unread and keeps the last segment's time: a read that holds several token-bearing events bounds
all but the last from above only, and the loop's `before` bounds them from below. A server may also write several
tokens at once: then they came in one segment, which the kernel's count of segments shows, and the instant is theirs.

What is read is acknowledged at once. A server without TCP_NODELAY (Dynamo's frontend is one) holds its next segment
until the last one is acknowledged, and the kernel delays that by 40 ms on a connection that it takes for interactive:
on one used again, first tokens were 25 ms late by our fault, and tokens came in clumps of five. It takes a connection
for interactive when it sends soon after it received, so TCP_QUICKACK is set after each request and wherever a read goes
the whole way; a stream under way sends nothing, and stays as it is.

A server may close an idle connection just as a request goes out on it. That is no failure of the server's, and the
request is sent again, once, on a fresh connection; but only where it is certain that the server's program can't have
read any of it (`linux.Delivery`). What the server's kernel has to say about it may take a round trip: until then the
connection is in doubt, and is looked at each millisecond. Where it can't be proven the exchange has failed.

Each callback has one outermost guard: gevent stops a watcher whose callback raises, and its exchange would hang. Here
it ends as internal_error instead.
"""

# ruff: noqa: RET502, RET503 - `return self._finish(...)` ends the method there
from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Protocol

from traces.request import NS_PER_S

from ..clock import Clock, realtime_ns
from ..exchange import Done, Exchange, Outcome
from ..linux import ANCILLARY, Delivery, timespec
from ..rules import Limits
from ..wire import Reader
from .answer import Answer
from .deadlines import LINGER_NS, Deadline, next_deadline, request_end
from .transport import CLOSED, OPEN, SHAKING, TUNNELLING, Route, Transport, tls_reason

READ_SIZE = 1 << 16
DOUBT_S, DOUBT_NS = 0.001, NS_PER_S  # between two looks at a connection in doubt, and how long they may go on


@dataclass(slots=True, eq=False)
class Flight:
    """One exchange on its way, and what it needs until it is over."""

    exchange: Exchange
    payload: bytes
    reader: Reader
    done: Done


class Owner(Route, Protocol):
    """What a connection needs of the client that it belongs to, and what it reports to it."""

    limits: Limits
    clock: Clock
    resend: bool

    def watch(self, connection: Connection, limit: int) -> None: ...  # `look` is wanted at that instant

    def over(self, flight: Flight, outcome: Outcome, error: str) -> None: ...

    def again(self, flight: Flight) -> None: ...  # the request must be sent again, on another connection

    def idle(self, connection: Connection) -> None: ...  # free for another exchange

    def gone(self, connection: Connection) -> None: ...  # closed


class Connection(Transport):
    """A connection and the flight it carries, if any."""

    __slots__ = (
        "_answer", "_bytes", "_delivery", "_earlier", "_lag", "_reads", "_stepped", "_unstamped", "flight", "origin",
        "owner",
    )  # fmt: skip

    def __init__(self, owner: Owner, flight: Flight) -> None:
        super().__init__(owner)
        self.owner, self.origin = owner, owner.clock.origin
        self.flight: Flight | None = flight
        self._reads = self._earlier = 0  # reads, and bytes of earlier flights
        self._begin(flight)

    # Sending.

    def _ready(self) -> None:
        assert self.flight is not None
        self.flight.exchange.connected = realtime_ns() - self.origin
        self._send()

    def take(self, flight: Flight) -> None:
        """Carries another flight on this open connection."""
        self.flight, self.origin = flight, self.owner.clock.origin
        self._earlier += self._bytes
        self._begin(flight)
        flight.exchange.reused = True
        flight.exchange.connected = realtime_ns() - self.origin
        self.loop.connections_reused += 1
        self._guarded(self._send)

    def _begin(self, flight: Flight) -> None:
        self._bytes = self._lag = self._unstamped = 0
        self._stepped: int | None = None
        self._answer = Answer(flight.exchange, flight.reader, self.origin)

    def _send(self) -> None:
        assert self.flight is not None
        flight, payload = self.flight, self.flight.payload
        if flight.exchange.reused and self.owner.resend and self._segments is not None:
            assert self._sock is not None
            self._delivery = Delivery(self._sock)
        else:
            flight.payload = b""  # nothing could prove that it may be sent a second time
        if self._tls is not None:
            self._tls.encrypt(payload)
            payload = self._tls.take()
        flight.exchange.sent = realtime_ns() - self.origin
        self._write(payload)

    def _flushed(self) -> None:
        if self.flight is not None and self.flight.exchange.sent is not None:  # `sent` comes after the handshake
            self.flight.exchange.body_sent = self.flight.exchange.body_sent or realtime_ns() - self.origin

    # Receiving.

    def _readable(self) -> None:
        try:
            try:
                data, ancillary, _, _ = self._recvmsg(READ_SIZE, ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:
                return self._ended(error.strerror or str(error))
            now = stamp = realtime_ns()
            if ancillary:
                seconds, nanoseconds = timespec(ancillary[0][2])
                stamp = seconds * NS_PER_S + nanoseconds
                if now - stamp > self._lag:
                    self._lag = now - stamp
            elif data:
                self._unstamped += 1
            self._bytes += len(data)
            self._reads += 1
            self.loop.reads += 1
            if self._tls is not None or not self._quickly(data, stamp):
                self._received(data, stamp, now - stamp)
        except BaseException as error:  # Ctrl-C may land here, too: the exchange must not hang for it
            self._fault(error)
            if not isinstance(error, Exception):
                raise

    def _quickly(self, data: bytes, stamp: int) -> bool:
        """Did the read bring tokens like the one before, and nothing else? Nearly all do."""
        tokens = self._answer.quick(data, stamp, self.loop.before)
        self.loop.tokens += tokens
        if tokens > 1 and self._in_one_piece():
            self._answer.together(stamp)
        return tokens > 0

    def _received(self, data: bytes, stamp: int, lag: int) -> None:
        if not data:
            return self._ended("closed")
        if self.state != OPEN:
            return self._tunnelled(data) if self.state == TUNNELLING else self._shake(data)
        if self.flight is None:
            return self.close()  # no request is open: the server is out of step
        if self._tls is not None:
            try:
                data = self._tls.decrypt(data)
            except ssl.SSLError as error:
                return self._finish(Outcome.TRUNCATED, f"TLS: {tls_reason(error)}", stamp)
            self._write(self._tls.take())
        if data and not (self._tls is not None and self._quickly(data, stamp)):
            self._feed(data, stamp, lag)
        if self._tls is not None and self._tls.closed and self.state == OPEN:
            self._ended("closed")

    def _in_one_piece(self) -> bool:
        """Did the last read bring one segment?"""
        segments = self._segments
        return segments is not None and segments.one_read_one_segment(self._reads, self._earlier + self._bytes)

    def _feed(self, data: bytes, stamp: int, lag: int) -> None:
        self._acknowledge()
        answer, piece = self._answer, self._in_one_piece()
        tokens = answer.tokens
        end = answer.feed(data, stamp, self.loop.before)
        self.loop.tokens += answer.tokens - tokens
        if piece and answer.tokens > tokens + 1:
            answer.together(stamp)
        if self.flight is not None:
            self.flight.payload = b""  # what has begun to be answered is never sent again
            if not tokens and answer.tokens:
                self.flight.exchange.first_lag = lag or None  # unknown without a kernel timestamp
                self.owner.watch(self, self._deadline(self.flight.exchange).instant)
        if end is not None:
            self._finish(*end)
        elif answer.finished_at is not None:
            self.owner.watch(self, answer.finished_at + LINGER_NS)

    def _ended(self, why: str) -> None:
        """The connection is at its end."""
        flight, stamp = self.flight, realtime_ns()
        if flight is None:
            return self.close()
        if self.state != OPEN:
            stage = {TUNNELLING: " by the proxy", SHAKING: " during the TLS handshake"}.get(self.state, "")
            return self._finish(Outcome.REFUSED, f"connection {why}{stage}", stamp)
        self._settle(flight, why, stamp)

    def _settle(self, flight: Flight, why: str, ended: int) -> None:
        """The connection ended: a request that certainly wasn't read goes out again, any other has failed."""
        unread = self._delivery.unread(self._earlier + self._bytes) if flight.payload else False
        if unread is None and realtime_ns() - ended < DOUBT_NS:
            if self._timer is None:
                self._reader.stop()
                self._timer = self.loop.ev.timer(DOUBT_S, DOUBT_S)
                self._timer.start(self._guarded, lambda: self._settle(flight, why, ended))
            return
        if not unread:
            return self._finish(*self._answer.closed(why, ended, self.loop.before))
        self.flight = None
        self.close()
        self.owner.again(flight)

    # Time limits, and other ends from outside.

    def look(self, now: int) -> int | None:
        """Ends the flight if a time limit has passed; else the instant of its next limit. Run instants."""
        if self.flight is None:
            return None
        deadline = self._deadline(self.flight.exchange)
        if now < deadline.instant:
            return deadline.instant
        if self.addresses_left and now < request_end(self.flight.exchange, self.owner.limits, self._stepped):
            self._release()
            self.connect()
            return self.look(now)
        if deadline.outcome is Outcome.OK:
            self._finish(*self._answer.finish(now + self.origin))
        elif self._answer.failing:
            self._finish(*self._answer.failure(now + self.origin))
        else:
            self._finish(deadline.outcome, deadline.error, now + self.origin)
        return None

    def _deadline(self, exchange: Exchange) -> Deadline:
        # Each address has its share of the time: one that swallows packets must not hide the next.
        share = self._tried / len(self.owner.address.sockaddrs) if self.addresses_left else 1.0
        return next_deadline(exchange, self.owner.limits, self._answer.finished_at, self._stepped, share)

    def step(self, now: int) -> None:
        """The clock was stepped: instants before can't be compared with those after it."""
        if self.flight is not None:
            self.flight.exchange.stepped = True
            self._stepped = now
            self.origin = self._answer.origin = self.owner.clock.origin

    def stop(self, outcome: Outcome, error: str) -> None:
        """Ends the flight from outside, and closes."""
        if self.flight is None:
            self.close()
        self._finish(outcome, error)

    def _finish(self, outcome: Outcome, error: str, stamp: int | None = None) -> None:
        flight = self.flight
        if flight is None:
            return
        exchange, self.flight = flight.exchange, None
        exchange.done = (realtime_ns() if stamp is None else stamp) - self.origin
        exchange.bytes_received += self._bytes
        exchange.max_lag = max(exchange.max_lag, self._lag)
        exchange.unstamped += self._unstamped
        answer = self._answer
        self.loop.reads_fast += answer.fast
        self.loop.reads_unstamped += self._unstamped
        if exchange.token_at:
            exchange.first_after = min(answer.first_after - self.origin, exchange.token_at[0])
            exchange.last_after = min(answer.last_after - self.origin, exchange.token_at[-1])
        open_still = self.state == OPEN and not self._outbox and not (self._tls is not None and self._tls.closed)
        if open_still and answer.reusable:
            answer.close()
            self.owner.idle(self)
        else:
            self.close()
        self.owner.over(flight, outcome, error)

    def close(self) -> None:
        """Closes the socket; the flight, if there is one, is the caller's."""
        if self.state != CLOSED:
            self.state = CLOSED
            self._answer.close()
            self._release()
            self.owner.gone(self)

    def _fault(self, error: BaseException) -> None:
        """A fault of ours: the exchange ends as internal_error, the connection is not used again."""
        self.loop.internal_faults += 1
        flight, self.flight = self.flight, None
        try:
            self.close()
        finally:
            if flight is not None:
                flight.exchange.done = realtime_ns() - self.origin
                self.owner.over(flight, Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
