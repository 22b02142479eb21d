"""One request and its whole answer, bytes kept: for recording a server, not for measuring it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from traces.errors import InputError
from traces.request import NS_PER_S, Request

from ..client.blocking import Within, exchange
from ..client.http import HttpError
from ..client.http_client import HttpClient
from ..client.sse import Decoder, SseError
from ..clock import Clock, monotonic_ns
from ..connecting import connect
from ..exchange import Call, Exchange
from ..rules import Limits
from ..target import Target
from ..wire import WireError
from .recording import EMPTY, Recording, replay


class _WithinLimits(Within):
    """A target's limits, as a run has them: what is no token (a ping) ends no wait for one."""

    def __init__(self, limits: Limits, wire: Any) -> None:
        super().__init__(limits.request_s)
        self._limits, self._reader, self._decoder, self._exchange = limits, wire.Reader(), Decoder(), replace(EMPTY)
        self._wait(limits.connect_s, "no connection")

    def _wait(self, seconds: float, without: str) -> None:
        self._next = monotonic_ns() + round(seconds * NS_PER_S), f"{without} within {seconds:g} s"

    def sent(self) -> None:
        self._wait(self._limits.first_token_s, "no first token")

    def received(self, piece: bytes) -> None:
        with suppress(WireError, SseError):  # whoever reads the recording reports what is wrong with it
            events = self._decoder.feed(piece)
            if sum(self._reader.feed(data, name, self._exchange) for data, name in events):
                self._wait(self._limits.silence_s, "no further token")

    def limit(self) -> tuple[int, str]:
        return min(super().limit(), self._next)


def record(target: Target, prompt: str, tokens: int, source: str = "") -> tuple[Recording, Exchange]:
    """A target's answer to one prompt, and what our reader finds in it. `source`: which server it is, for the record.
    Raises InputError where there is no answer."""
    request = Request(0, 0, len(prompt.split()), tokens)
    wire, recording = fetch(target, Call(request=request, target=target.name, due=0, prompt=prompt), source)
    return recording, replay(wire, recording)


def fetch(target: Target, call: Call, source: str = "") -> tuple[Any, Recording]:
    """The target's wire format and what it answers. Raises InputError where there is no answer."""
    client = connect(target, Clock())
    if not isinstance(client, HttpClient):
        raise InputError("can be recorded on one leg only", where=target.url)
    path, own, body = client.wire.request(call, target)
    payload = client.head.payload(path, [*own, ("Connection", "close")], body)
    try:
        response, answer = exchange(client.address, payload, _WithinLimits(target.limits, client.wire), client.tls)
    except TimeoutError as error:
        raise InputError(str(error), where=target.url) from None
    except (OSError, HttpError) as error:
        raise InputError(f"no answer: {error}", where=target.url) from None
    finally:
        client.close()
    headers = {name: client.head.clean(value) for name, value in response.headers.items()}
    answer = client.head.clean(answer.decode("latin-1")).encode("latin-1")  # each byte a character, and back
    return client.wire, Recording(response.status, answer, headers, source)
