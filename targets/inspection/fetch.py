"""One request and its whole answer, bytes kept: for recording a server, not for measuring it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from traces.errors import InputError

from ..client.blocking import Within, exchange
from ..client.http import HttpError
from ..client.http_client import HttpClient
from ..client.sse import Decoder, SseError
from ..clock import Clock, monotonic_ns
from ..connecting import connect
from ..exchange import Call
from ..target import Target
from ..wire import WireError
from .recording import UNTOLD, Recording


class _Limits(Within):
    """The target's own limits, as a run has them: what is no token (a ping) ends no wait for one."""

    def __init__(self, spec: Target, wire: Any) -> None:
        super().__init__(spec.limits.request_s)
        self.spec, self.reader, self.decoder, self.told = spec, wire.Reader(), Decoder(), replace(UNTOLD)
        self._wait(spec.limits.connect_s, "no connection")

    def _wait(self, seconds: float, without: str) -> None:
        self._next = monotonic_ns() + round(seconds * 1e9), f"{without} within {seconds:g} s"

    def sent(self) -> None:
        self._wait(self.spec.limits.first_token_s, "no first token")

    def heard(self, piece: bytes) -> None:
        with suppress(WireError, SseError):  # whoever reads the recording says what is wrong with it
            if sum(self.reader.feed(data, name, self.told) for data, name in self.decoder.feed(piece)):
                self._wait(self.spec.limits.silence_s, "no further token")

    def limit(self) -> tuple[int, str]:
        return min(super().limit(), self._next)


def fetch(spec: Target, call: Call, source: str = "") -> tuple[Any, Recording]:
    """The target's wire format and what it answers. Raises InputError where there is no answer to be had."""
    target = connect(spec, Clock())
    if not isinstance(target, HttpClient):
        raise InputError("can be recorded on one leg only", where=spec.url)
    path, own, body = target.wire.request(call, spec)
    payload = target.head.payload(path, [*own, ("Connection", "close")], body)
    try:
        response, answer = exchange(target.address, payload, _Limits(spec, target.wire), target.tls)
    except TimeoutError as error:
        raise InputError(str(error), where=spec.url) from None
    except (OSError, HttpError) as error:
        raise InputError(f"no answer: {error}", where=spec.url) from None
    finally:
        target.close()
    headers = {name: target.head.clean(value) for name, value in response.headers.items()}
    answer = target.head.clean(answer.decode("latin-1")).encode("latin-1")  # each byte a character, and back
    return target.wire, Recording(response.status, answer, headers, source)
