"""The way to a server: its addresses in turn, a proxy's tunnel, TLS; then bytes out. Bytes in are the subclass's
(connection.py), for they are what is measured.

Every method runs in the hub (or in the greenlet that starts an exchange) and never blocks or switches. A write watcher
is active only while a connect or a large body is under way; a read watcher lives as long as the socket.

The plain C socket is used: gevent's own class has a hub of waiting logic that callbacks don't want. TLS goes over
memory, ciphertext in and plaintext out, so that the socket's reads keep their kernel times.
"""

# ruff: noqa: RET502, RET503 - `return self._finish(...)` ends the method there
from __future__ import annotations

import _socket
import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from .. import linux
from ..address import Address
from ..exchange import Outcome
from ..wire import lenient
from .loop import Loop

READ, WRITE = 1, 2  # an io watcher's events
PIECE = 1 << 16  # bytes of plaintext taken at once
TUNNEL_LIMIT = 16 << 10  # bytes of a proxy's answer
CONNECTING, TUNNELLING, SHAKING, OPEN, CLOSED = range(5)
# Errors that are this machine's fault, not the server's.
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM}


class Route(Protocol):
    """Where the server is, and how it is reached."""

    address: Address
    tls: ssl.SSLContext | None
    loop: Loop
    preferred: int  # position in `address.sockaddrs` of the address that was reached last


class Transport:
    """One socket from its first connect to its close. The methods at the end are the subclass's."""

    __slots__ = (
        "_address_number", "_outbox", "_proxy_answer", "_quick_ack", "_reader", "_recvmsg", "_route", "_segments",
        "_sock", "_timer", "_tls", "_tried", "_writer", "loop", "state",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        self._route, self.loop = route, route.loop
        self.state = CONNECTING
        self._tls: Tls | None = None
        self._outbox = memoryview(b"")
        self._sock: _socket.socket | None = None
        self._reader: Any = None  # watchers
        self._writer: Any = None
        self._timer: Any = None
        self._tried = 0  # addresses so far
        self._proxy_answer = b""

    def connect(self) -> None:
        """Starts connecting to the next address that was not tried; fails when there is none."""
        addresses = self._route.address.sockaddrs
        while True:
            self._address_number = (self._route.preferred + self._tried) % len(addresses)
            self._tried += 1
            try:
                return self._open(*addresses[self._address_number])
            except OSError as error:
                self._release()
                if not self.addresses_left:
                    return self._refused(error)

    @property
    def addresses_left(self) -> bool:
        """Is there an address to try yet, while it connects?"""
        return self.state == CONNECTING and self._tried < len(self._route.address.sockaddrs)

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

    # From the first packet to an open connection.

    def _open(self, family: int, address: Any) -> None:
        sock = self._sock = _socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        linux.stamp_reads(sock)  # before connect: no segment may come without
        tcp = family != socket.AF_UNIX
        if tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not tcp or linux.SO_TIMESTAMPNS is None:
            self.loop.poll_often()
        failed = sock.connect_ex(address)
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, os.strerror(failed))
        self._recvmsg = sock.recvmsg
        self._quick_ack = linux.quick_ack(sock) if tcp else None
        self._segments = linux.SegmentCount(sock) if self._quick_ack is not None else None
        self._reader = self.loop.ev.io(sock.fileno(), READ)
        self._writer = self.loop.ev.io(sock.fileno(), WRITE)
        self._writer.start(self._guarded, self._connected)

    def _connected(self) -> None:
        assert self._sock is not None
        failed = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._writer.stop()
        if failed:
            if self.addresses_left:
                self._release()
                return self.connect()
            return self._refused(OSError(failed, os.strerror(failed)))
        self._route.preferred = self._address_number
        self.loop.connections_opened += 1
        self._reader.start(self._readable)
        if self._route.address.proxy == "tunnel":
            return self._tunnel()
        self._secure()

    def _tunnel(self) -> None:
        """Asks the proxy for a way to the target."""
        self.state = TUNNELLING
        self._write(self._route.address.connect())

    def _tunnelled(self, data: bytes) -> None:
        self._proxy_answer += data
        head, end, rest = self._proxy_answer.partition(b"\r\n\r\n")
        if not end:
            if len(head) > TUNNEL_LIMIT:
                self._finish(Outcome.REFUSED, "the proxy's answer to CONNECT never ends")
            return
        self._proxy_answer = b""
        status = head.partition(b"\r\n")[0].split(b" ")
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200" or rest:
            answer = head[:100].partition(b"\r\n")[0].decode("latin-1")
            return self._finish(Outcome.REFUSED, f"the proxy refused the tunnel: {lenient.line(answer)}")
        self._secure()

    def _secure(self) -> None:
        if self._route.tls is None:
            return self._established()
        self.state = SHAKING
        self._tls = Tls(self._route.tls, self._route.address.host)
        self._shake(b"")

    def _shake(self, cipher: bytes) -> None:
        assert self._tls is not None
        try:
            ready = self._tls.shake(cipher)
        except ssl.SSLError as error:
            self._write(self._tls.take())  # the alert that says why
            return self._finish(Outcome.REFUSED, f"TLS: {tls_reason(error)}")
        self._write(self._tls.take())
        if ready:
            self._established()

    def _established(self) -> None:
        self.state = OPEN
        self._ready()

    def _refused(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            reason += ": raise the limit of open files (ulimit -n), or use more processes"
        elif error.errno == errno.EADDRNOTAVAIL:
            reason += ": no local port is free for another connection to this address"
        self._finish(Outcome.INTERNAL_ERROR if error.errno in OURS else Outcome.REFUSED, reason)

    # Bytes out.

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
        self._flushed()
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._quick_ack is not None:
            with suppress(OSError):  # the connection is broken: the next read brings the reason
                self._quick_ack()

    # The end.

    def _release(self) -> None:
        for watcher in (self._reader, self._writer, self._timer):
            if watcher is not None:
                watcher.close()
        self._reader = self._writer = self._timer = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException as error:
            self._fault(error)
            if not isinstance(error, Exception):
                raise

    # The subclass's.

    def _ready(self) -> None:
        """The connection is open, and nothing is written on it yet."""

    def _flushed(self) -> None:
        """All that was written has gone out."""

    def _readable(self) -> None:
        """There is something to read; must not raise."""

    def _finish(self, outcome: Outcome, error: str) -> None:
        """No connection could be had."""

    def _fault(self, error: BaseException) -> None:
        """A callback raised: a fault of ours."""


class Tls:
    """One connection's TLS, sans-I/O. What must be written to the socket is in `take()` after every call."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closed", "take")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.take = self._outgoing.read
        self.closed = False  # the peer will send no more

    def shake(self, cipher: bytes) -> bool:
        """Goes on with the handshake; is it done? Raises ssl.SSLError."""
        self._incoming.write(cipher)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def encrypt(self, plain: bytes) -> None:
        self._object.write(plain)

    def decrypt(self, cipher: bytes) -> bytes:
        """The plaintext that `cipher` completes. Raises ssl.SSLError."""
        self._incoming.write(cipher)
        pieces: list[bytes] = []
        try:
            while piece := self._object.read(PIECE):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate can't be verified: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
