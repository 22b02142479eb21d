"""One request and its whole answer, bytes kept: for recording a server, not for measuring it."""

from __future__ import annotations

import socket
from typing import Any

from traces.errors import InputError

from .client import HttpTarget
from .clock import Clock
from .connect import connect
from .http import HttpError, Response
from .recording import Recording
from .target import Ask, Spec

PATIENCE = 120.0  # seconds between two reads
LARGEST = 16 << 20  # bytes of one answer


def fetch(spec: Spec, ask: Ask, source: str = "") -> tuple[Any, Recording]:
    """The target's wire format and what it answers. Raises InputError where there is no answer to be had."""
    target = connect(spec, Clock())
    if not isinstance(target, HttpTarget) or target.address.proxy == "tunnel":
        raise InputError("can be recorded on one leg and without a tunnelling proxy only", where=spec.url)
    path, own, body = target.wire.request(ask, spec)
    payload = target.payload(path, [*own, ("Connection", "close")], body)
    try:
        response, answer = _ask(target, payload)
    except (OSError, HttpError) as error:
        raise InputError(f"no answer: {error}", where=spec.url) from None
    finally:
        target.close()
    headers = {name: target.clean(value) for name, value in response.headers.items()}
    answer = target.clean(answer.decode("latin-1")).encode("latin-1")  # each byte a character, and back
    return target.wire, Recording(response.status, answer, headers, source)


def _ask(target: HttpTarget, payload: bytes) -> tuple[Response, bytes]:
    response, body = Response(), b""
    with _connected(target) as sock:
        sock.sendall(payload)
        while not response.complete and (data := sock.recv(1 << 16)):
            body += response.feed(data)
            if len(body) > LARGEST:
                raise HttpError(f"an answer longer than {LARGEST} bytes")
    if not response.headers_done:
        raise HttpError("the connection was closed before the headers")
    return response, body


def _connected(target: HttpTarget) -> socket.socket:
    family, address = target.address.sockaddrs[0]
    sock = socket.socket(family)
    sock.settimeout(PATIENCE)
    sock.connect(address)  # type: ignore[arg-type]
    return sock if target.tls is None else target.tls.wrap_socket(sock, server_hostname=target.address.host)
