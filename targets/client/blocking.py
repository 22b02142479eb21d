"""One HTTP exchange over a blocking socket, its whole answer in memory: for servers' metrics, for discovery and for
recordings. Not for measuring.

It goes the way that a target's requests go (targets/address.py): through the environment's proxy, but for loopback
addresses and what no_proxy names.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

from traces.trace import NS_PER_S

from ..address import Address, address, tls_context
from ..clock import monotonic_ns
from ..wire import lenient
from .http import HttpError, Response

LARGEST = 16 << 20  # bytes of one answer
REDIRECTS = 3
PIECE = 1 << 16

_context = lru_cache(tls_context)


class Within:
    """How long an exchange may take: its answer must be there, whole, within so many seconds from now."""

    def __init__(self, patience: float) -> None:
        self.began, self.patience = monotonic_ns(), patience

    def sent(self) -> None:
        """The request is out."""

    def received(self, piece: bytes) -> None:
        """So much more of the answer is here."""

    def limit(self) -> tuple[int, str]:
        """The monotonic instant of the next limit, and the error of an exchange that meets it."""
        return self.began + round(self.patience * NS_PER_S), f"no whole answer within {self.patience:g} s"


def get(
    url: str, patience: float, *, insecure: bool = False, ca_file: str | None = None, largest: int = LARGEST
) -> bytes:
    """The body at a URL, whole, within `patience` seconds a request. Raises OSError, HttpError or InputError."""
    for _ in range(1 + REDIRECTS):
        where = address(url)
        context = _context(insecure=insecure, ca_file=ca_file) if where.scheme == "https" else None
        response, body = exchange(where, _get(where, url), Within(patience), context, largest)
        moved = response.headers.get("location")
        if not (300 <= response.status < 400 and moved):
            break
        url = urljoin(url, moved)
    if response.status != 200:
        raise HttpError(f"HTTP {response.status}: {lenient.complaint_in(body)}")
    if not response.end():
        raise HttpError(f"the answer ended after {len(body)} bytes, before its end")
    return body


def speaks(url: str, patience: float) -> bool:
    """Does HTTP come back from this URL, or TLS, whatever is said? Not known (no) where a proxy stands in between."""
    where = address(url)
    context = _context(insecure=True, ca_file=None) if where.scheme == "https" else None
    try:
        return not where.proxy and bool(exchange(where, _get(where, url), Within(patience), context))
    except HttpError:  # after the handshake
        return context is not None
    except OSError:
        return False


def _get(where: Address, url: str) -> bytes:
    key = f"Proxy-Authorization: {where.proxy_key}\r\n" if where.proxy == "forward" and where.proxy_key else ""
    path = replace(where, prefix="").path(urlsplit(url).path or "/")  # a final slash means something here
    head = f"GET {path} HTTP/1.1\r\nHost: {where.authority}\r\nUser-Agent: phaseload\r\nAccept: */*\r\n"
    return f"{head}Accept-Encoding: identity\r\nConnection: close\r\n{key}\r\n".encode()


def exchange(
    where: Address, payload: bytes, within: Within, context: ssl.SSLContext | None, largest: int = LARGEST
) -> tuple[Response, bytes]:
    """The answer to a request, as far as it comes; `Response.end` is true where that is all of it. Raises OSError and
    HttpError where there are no headers, or where it takes too long or too much memory."""
    response, body = Response(), bytearray()
    try:
        with _connected(where, context, within) as sock:
            _hurry(sock, within).sendall(payload)
            within.sent()
            while not response.complete and (data := _hurry(sock, within).recv(PIECE)):
                body += (piece := response.feed(data))
                within.received(piece)
                if len(body) > largest:
                    raise HttpError(f"an answer longer than {largest} bytes")
    except TimeoutError:
        raise TimeoutError(within.limit()[1]) from None
    finally:
        response.close()
    if not response.headers_done:
        raise HttpError("the connection was closed before any answer")
    return response, bytes(body)


def _hurry(sock: socket.socket, within: Within) -> socket.socket:
    """The socket, whose next call takes no longer than it may."""
    left = (within.limit()[0] - monotonic_ns()) / NS_PER_S
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    return sock


def _connected(where: Address, context: ssl.SSLContext | None, within: Within) -> socket.socket:
    sock = _first_open(where, within)
    try:
        if where.proxy == "tunnel":
            _tunnel(where, sock, within)
        return sock if context is None else context.wrap_socket(_hurry(sock, within), server_hostname=where.host)
    except BaseException:
        sock.close()
        raise


def _first_open(where: Address, within: Within) -> socket.socket:
    failed = OSError("the name has no address")
    for family, sockaddr in where.sockaddrs:
        sock = socket.socket(family)
        try:
            _hurry(sock, within).connect(sockaddr)  # type: ignore[arg-type]
            return sock
        except OSError as error:
            sock.close()
            failed = error
    raise failed


def _tunnel(where: Address, sock: socket.socket, within: Within) -> None:
    sock.sendall(where.connect())
    response = Response()
    while not response.headers_done and (data := _hurry(sock, within).recv(1)):  # what follows is the target's
        response.feed(data)
    response.close()
    if response.status != 200:
        raise HttpError(f"the proxy refused the tunnel: {response.status or 'no answer'}")
