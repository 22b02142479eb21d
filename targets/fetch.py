"""One request and its whole answer, bytes kept: for recording a server, not for measuring it."""

from __future__ import annotations

from typing import Any

from traces.errors import InputError

from .blocking import exchange
from .client import HttpTarget
from .clock import Clock
from .connect import connect
from .http import HttpError
from .recording import Recording
from .target import Ask, Spec

PATIENCE = 300.0  # seconds


def fetch(spec: Spec, ask: Ask, source: str = "") -> tuple[Any, Recording]:
    """The target's wire format and what it answers. Raises InputError where there is no answer to be had."""
    target = connect(spec, Clock())
    if not isinstance(target, HttpTarget):
        raise InputError("can be recorded on one leg only", where=spec.url)
    path, own, body = target.wire.request(ask, spec)
    payload = target.payload(path, [*own, ("Connection", "close")], body)
    try:
        response, answer = exchange(target.address, payload, PATIENCE, target.tls)
    except (OSError, HttpError) as error:
        raise InputError(f"no answer: {error}", where=spec.url) from None
    finally:
        target.close()
    headers = {name: target.clean(value) for name, value in response.headers.items()}
    answer = target.clean(answer.decode("latin-1")).encode("latin-1")  # each byte a character, and back
    return target.wire, Recording(response.status, answer, headers, source)
