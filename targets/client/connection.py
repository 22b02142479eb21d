"""One connection of the streaming client: callbacks on the hub's loop, from connect to the last byte.

Theory of operation. Every method here runs in the hub (or in the greenlet that starts an exchange) and never blocks or
switches. A read watcher lives as long as the socket; its callback calls `recvmsg`, which brings the bytes together with
the kernel's receive time (SO_TIMESTAMPNS, CLOCK_REALTIME). So an instant is right however late the callback runs. The
kernel merges what waits unread and keeps the last segment's time: a read that holds several token-bearing events bounds
all but the last from above only, and the pulse's `before` bounds them from below. A server may also write several
tokens at once: then they came in one segment, which the kernel's count of segments tells, and the instant is theirs.

What is read is acknowledged at once. A server without TCP_NODELAY (Dynamo's frontend is one) holds its next segment
until the last one is acknowledged, and the kernel delays that by 40 ms on a connection that it takes for interactive:
on one used again, first tokens were 25 ms late by our fault, and tokens came in clumps of five. It takes a connection
for interactive when it sends soon after it received, so TCP_QUICKACK is set after each request and wherever a read goes
the whole way; a stream under way sends nothing, and stays as it is.

A write watcher exists only while a connect or a large body is under way. Each callback has one outermost guard: gevent
stops a watcher whose callback raises, and its exchange would hang. Here it ends as internal_error instead.

The plain C socket is used: gevent's own class has a hub of waiting logic that callbacks don't want.
"""

# ruff: noqa: RET502, RET503 - `return self._finish(...)` says: and that was it
from __future__ import annotations

import _socket
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from ..address import Address
from ..clock import realtime_ns
from ..exchange import Exchange, Outcome
from ..limits import Limits
from ..wire import lenient
from .answer import Answer
from .deadlines import LINGER_NS, Deadline, next_deadline, request_end
from .loop import SO_TIMESTAMPNS, Pulse, stamped
from .tls import Tls

READ, WRITE = 1, 2
READ_SIZE = 1 << 16
TUNNEL_LIMIT = 16 << 10  # bytes of a proxy's answer
RACE = 10_000_000  # ns, and two round trips: how long after a request the close of an idle connection may arrive
NANO = 1_000_000_000

_TIMESPEC = struct.Struct("@ll")  # what SO_TIMESTAMPNS brings
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
unpack = _TIMESPEC.unpack
_RECEIVED = struct.Struct("=128xQ16xI")  # of Linux's tcp_info: bytes that came in, and the segments that brought them
ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)

CONNECTING, TUNNELLING, SHAKING, OPEN, CLOSED = range(5)
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM}


@dataclass(slots=True, eq=False)
class Flight:
    """One exchange on its way, and what it needs until it is over."""

    exchange: Exchange
    payload: bytes
    reader: Any
    done: Callable[[Exchange], None]


class Owner(Protocol):
    """What a connection needs of the client that it belongs to, and what it reports to it."""

    address: Address
    limits: Limits
    tls: ssl.SSLContext | None
    wire: ModuleType | Any
    pulse: Pulse
    preferred: int  # position in `address.sockaddrs` of the address that was reached last

    @property
    def origin(self) -> int:
        """The run's start on CLOCK_REALTIME, ns."""

    def watch(self, connection: Connection, limit: int) -> None:
        """Calls `look` when that instant has come."""

    def over(self, flight: Flight, outcome: Outcome, error: str) -> None:
        """The exchange has ended."""

    def again(self, flight: Flight) -> None:
        """The request must be sent again, on another connection."""

    def idle(self, connection: Connection) -> None:
        """The connection is free for another exchange."""

    def gone(self, connection: Connection) -> None:
        """The connection is closed."""


class Connection:
    """A connection and the flight it carries, if any."""

    __slots__ = (
        "_answer", "_attempt", "_began", "_bytes", "_collected", "_counted", "_earlier", "_lag", "_outbox", "_quickack",
        "_reader", "_reads", "_recvmsg", "_sock", "_stepped", "_tls", "_tried", "_unstamped", "_way", "_writer",
        "flight", "origin", "owner", "phase", "pulse",
    )  # fmt: skip

    def __init__(self, owner: Owner, flight: Flight) -> None:
        self.owner = owner
        self.flight: Flight | None = flight
        self.pulse, self.origin = owner.pulse, owner.origin
        self.phase = CONNECTING
        self._tls: Tls | None = None
        self._outbox = memoryview(b"")
        self._sock: _socket.socket | None = None
        self._reader: Any = None  # watchers
        self._writer: Any = None
        self._tried = 0
        self._collected = b""
        self._begin(flight)

    # Connecting.

    def connect(self) -> None:
        """Starts connecting to the next address that was not tried; ends the flight when there is none."""
        addresses = self.owner.address.sockaddrs
        error: OSError | None = None
        while self._tried < len(addresses):
            self._attempt = (self.owner.preferred + self._tried) % len(addresses)
            self._tried += 1
            try:
                return self._open(*addresses[self._attempt])
            except OSError as failed:
                error = failed
                self._release()
        assert error is not None
        self._refused(error)

    @property
    def _untried(self) -> bool:
        return self.phase == CONNECTING and self._tried < len(self.owner.address.sockaddrs)

    def _open(self, family: int, address: Any) -> None:
        sock = self._sock = _socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        stamped(sock)  # before connect: no segment may come without
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_UNIX or SO_TIMESTAMPNS is None:
            self.pulse.poll_often()
        self._began = realtime_ns()
        failed = sock.connect_ex(address)
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, os.strerror(failed))
        self._recvmsg = sock.recvmsg
        self._reads = self._earlier = 0  # reads, and bytes of earlier flights
        self._counted: tuple[int, int] | None = (0, 0)  # reads and segments at the last count
        self._quickack = None
        if QUICKACK is not None and family != socket.AF_UNIX:
            self._quickack = partial(sock.setsockopt, socket.IPPROTO_TCP, QUICKACK, 1)
        self._reader = self.pulse.loop.io(sock.fileno(), READ)
        self._writer = self.pulse.loop.io(sock.fileno(), WRITE)
        self._writer.start(self._guarded, self._connected)

    def _connected(self) -> None:
        assert self._sock is not None and self.flight is not None
        failed = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._writer.stop()
        if failed:
            if self._untried:
                self._release()
                return self.connect()
            return self._refused(OSError(failed, os.strerror(failed)))
        self._way = realtime_ns() - self._began
        self.owner.preferred = self._attempt
        self.pulse.opened += 1
        self._reader.start(self._readable)
        if self.owner.address.proxy == "tunnel":
            return self._tunnel()
        self._secure()

    def _tunnel(self) -> None:
        """Asks the proxy for a way to the target."""
        address = self.owner.address
        key = f"Proxy-Authorization: {address.proxy_key}\r\n" if address.proxy_key else ""
        self.phase = TUNNELLING
        self._write(f"CONNECT {address.authority} HTTP/1.1\r\nHost: {address.authority}\r\n{key}\r\n".encode())

    def _tunnelled(self, data: bytes) -> None:
        self._collected += data
        head, end, rest = self._collected.partition(b"\r\n\r\n")
        if not end:
            if len(head) > TUNNEL_LIMIT:
                self._finish(Outcome.REFUSED, "the proxy's answer to CONNECT never ends")
            return
        self._collected = b""
        status = head.partition(b"\r\n")[0].split(b" ")
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200" or rest:
            answer = head[:100].partition(b"\r\n")[0].decode("latin-1")
            return self._finish(Outcome.REFUSED, f"the proxy refused the tunnel: {lenient.line(answer)}")
        self._secure()

    def _secure(self) -> None:
        if self.owner.tls is None:
            return self._ready()
        self.phase = SHAKING
        self._tls = Tls(self.owner.tls, self.owner.address.host)
        self._shake(b"")

    def _shake(self, cipher: bytes) -> None:
        assert self._tls is not None
        if cipher:
            self._tls.receive(cipher)
        try:
            ready = self._tls.shake()
        except ssl.SSLError as error:
            self._write(self._tls.take())  # the alert that says why
            return self._finish(Outcome.REFUSED, f"TLS: {_tls_reason(error)}")
        self._write(self._tls.take())
        if ready:
            self._ready()

    def _ready(self) -> None:
        self.phase = OPEN
        assert self.flight is not None
        self.flight.exchange.connected = realtime_ns() - self.origin
        self._send()

    # Sending.

    def alive(self) -> bool:
        """Is the idle connection open still, and silent? Its close may be there and not yet read."""
        assert self._sock is not None
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def take(self, flight: Flight) -> None:
        """Carries another flight on this open connection."""
        self.flight, self.origin = flight, self.owner.origin
        self._earlier += self._bytes
        self._begin(flight)
        flight.exchange.reused = True
        flight.exchange.connected = realtime_ns() - self.origin
        self.pulse.reused += 1
        try:
            self._send()
        except Exception as error:
            self._fault(error)

    def _begin(self, flight: Flight) -> None:
        self._bytes = self._lag = self._unstamped = 0
        self._stepped: int | None = None
        self._answer = Answer(flight.exchange, self.owner.wire, flight.reader, self.origin)

    def _send(self) -> None:
        assert self.flight is not None
        flight, payload = self.flight, self.flight.payload
        if not flight.exchange.reused:
            flight.payload = b""  # only a connection that may have been closed meanwhile sends it a second time
        if self._tls is not None:
            self._tls.encrypt(payload)
            payload = self._tls.take()
        flight.exchange.sent = realtime_ns() - self.origin
        self._write(payload)

    def _write(self, data: bytes) -> None:
        if self._outbox:
            self._outbox = memoryview(bytes(self._outbox) + data)
        elif data:
            self._outbox = memoryview(data)
            self._flush()

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            self._outbox = self._outbox[self._sock.send(self._outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outbox = memoryview(b"")  # an answer may be there to read, else the read brings the same error
            self._writer.stop()
            return
        if self._outbox:
            if not self._writer.active:
                self._writer.start(self._guarded, self._flush)
            return
        self._writer.stop()
        exchange = self.flight.exchange if self.flight is not None else None
        if exchange is not None and exchange.sent is not None and exchange.body_sent is None:
            exchange.body_sent = realtime_ns() - self.origin
        self._acknowledge()

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
                seconds, nanoseconds = unpack(ancillary[0][2])
                stamp = seconds * NANO + nanoseconds
                if now - stamp > self._lag:
                    self._lag = now - stamp
            elif data:
                self._unstamped += 1
            self._bytes += len(data)
            self._reads += 1
            self.pulse.reads += 1
            if self._tls is not None or not self._quickly(data, stamp):
                self._received(data, stamp, now - stamp)
        except Exception as error:
            self._fault(error)
        except BaseException as error:  # Ctrl-C may land here: the exchange must not hang for it
            self._fault(error)
            raise

    def _quickly(self, data: bytes, stamp: int) -> bool:
        """Did the read bring tokens like the one before, and nothing else? Nearly all do."""
        tokens = self._answer.quick(data, stamp, self.pulse.before)
        self.pulse.tokens += tokens
        if tokens > 1 and self._in_one_piece():
            self._answer.together(stamp)
        return tokens > 0

    def _received(self, data: bytes, stamp: int, lag: int) -> None:
        if not data:
            return self._ended("closed")
        if self.phase != OPEN:
            return self._tunnelled(data) if self.phase == TUNNELLING else self._shake(data)
        if self.flight is None:
            return self.close()  # nobody asked: the server is out of step
        if self._tls is not None:
            try:
                data = self._tls.decrypt(data)
            except ssl.SSLError as error:
                return self._finish(Outcome.TRUNCATED, f"TLS: {_tls_reason(error)}", stamp)
            self._write(self._tls.take())
        if data and not (self._tls is not None and self._quickly(data, stamp)):
            self._feed(data, stamp, lag)
        if self._tls is not None and self._tls.closed and self.phase == OPEN:
            self._ended("closed")

    def _in_one_piece(self) -> bool:
        """Did the last read bring one segment? It is known where nothing waits now, nothing waited at the last count,
        and there were as many segments since then as reads."""
        if self._quickack is None:
            return False
        assert self._sock is not None
        told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
        if len(told) < _RECEIVED.size:
            return False
        received, segments = _RECEIVED.unpack(told)
        reads, last, waiting = self._reads, self._counted, received - self._earlier - self._bytes
        alone = last is not None and reads - last[0] == segments - last[1]
        nothing = waiting == 0 or (waiting == 1 and alone)  # the connection's end is counted as a byte
        self._counted = (reads, segments) if nothing else None
        return alone and nothing

    def _acknowledge(self) -> None:
        if self._quickack is not None:
            with suppress(OSError):  # the connection is broken: the next read says how
                self._quickack()

    def _feed(self, data: bytes, stamp: int, lag: int) -> None:
        self._acknowledge()
        answer, piece = self._answer, self._in_one_piece()
        tokens = answer.tokens
        end = answer.feed(data, stamp, self.pulse.before)
        self.pulse.tokens += answer.tokens - tokens
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
        if self.phase != OPEN:
            stage = {TUNNELLING: " by the proxy", SHAKING: " during the TLS handshake"}.get(self.phase, "")
            return self._finish(Outcome.REFUSED, f"connection {why}{stage}", stamp)
        exchange = flight.exchange
        raced = stamp - self.origin - (exchange.sent or 0) < RACE + 2 * self._way
        if not self._bytes and exchange.reused and raced and not exchange.reconnected:
            self.flight = None
            self.close()
            return self.owner.again(flight)
        self._finish(*self._answer.closed(why, stamp, self.pulse.before))

    # Time limits, and other ends from outside.

    def look(self, now: int) -> int | None:
        """Ends the flight if a time limit has passed; else the instant of its next limit. Run instants."""
        if self.flight is None:
            return None
        deadline = self._deadline(self.flight.exchange)
        if now < deadline.instant:
            return deadline.instant
        if self._untried and now < request_end(self.flight.exchange, self.owner.limits, self._stepped):
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
        share = self._tried / len(self.owner.address.sockaddrs) if self._untried else 1.0
        return next_deadline(exchange, self.owner.limits, self._answer.finished_at, self._stepped, share)

    def step(self, now: int) -> None:
        """The clock was stepped: instants before can't be compared with those after it."""
        if self.flight is not None:
            self.flight.exchange.stepped = True
            self._stepped = now
            self.origin = self._answer.origin = self.owner.origin

    def stop(self, outcome: Outcome, error: str) -> None:
        """Ends the flight from outside, and closes."""
        if self.flight is None:
            return self.close()
        self._finish(outcome, error)

    def _refused(self, error: OSError) -> None:
        ours = error.errno in OURS
        reason = error.strerror or str(error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            reason += ": raise the limit of open files (ulimit -n), or use more processes"
        elif error.errno == errno.EADDRNOTAVAIL:
            reason += ": no local port is free for another connection to this address"
        self._finish(Outcome.INTERNAL_ERROR if ours else Outcome.REFUSED, reason)

    def _finish(self, outcome: Outcome, error: str, stamp: int | None = None) -> None:
        flight = self.flight
        if flight is None:
            return
        exchange, self.flight = flight.exchange, None
        exchange.done = (realtime_ns() if stamp is None else stamp) - self.origin
        self._account(exchange)
        answer = self._answer
        if exchange.token_at:
            exchange.first_after = min(answer.first_after - self.origin, exchange.token_at[0])
            exchange.last_after = min(answer.last_after - self.origin, exchange.token_at[-1])
        open_still = self.phase == OPEN and not self._outbox and not (self._tls is not None and self._tls.closed)
        if open_still and answer.reusable:
            answer.close()
            self.owner.idle(self)
        else:
            self.close()
        self.owner.over(flight, outcome, error)

    def _account(self, exchange: Exchange) -> None:
        answer, pulse = self._answer, self.pulse
        exchange.bytes_received += self._bytes
        exchange.max_lag = max(exchange.max_lag, self._lag)
        exchange.unstamped += self._unstamped
        pulse.fast += answer.fast
        pulse.unstamped += self._unstamped

    def close(self) -> None:
        """Closes the socket; the flight, if there is one, is the caller's."""
        if self.phase != CLOSED:
            self.phase = CLOSED
            self._answer.close()
            self._release()
            self.owner.gone(self)

    def _release(self) -> None:
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.close()
        self._reader = self._writer = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._fault(error)
        except BaseException as error:
            self._fault(error)
            raise

    def _fault(self, error: BaseException) -> None:
        """A fault of ours: the exchange ends as internal_error, the connection is not used again."""
        self.pulse.faults += 1
        flight, self.flight = self.flight, None
        try:
            self.close()
        finally:
            if flight is not None:
                flight.exchange.done = realtime_ns() - self.origin
                self.owner.over(flight, Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate can't be verified: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
