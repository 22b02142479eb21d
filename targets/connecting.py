"""`Client`: what sends calls to a target. `connect`: the client of a target, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .client.disaggregated import DisaggregatedClient
from .client.http_client import HttpClient
from .clock import Clock
from .exchange import Call, Exchange, Outcome
from .target import Target


class Client(Protocol):
    """Starts exchanges and hands each one back, once, when it is over.

    `start` never blocks and never raises for the endpoint's sake: `done` is called exactly once for each call, from
    an ordinary greenlet, with the finished Exchange. `stop` ends what is open with the given outcome. `close` ends
    what is still open as cut, and returns when all exchanges are handed back.
    """

    def start(self, call: Call, done: Callable[[Exchange], None]) -> None: ...

    def stop(self, outcome: Outcome) -> None: ...

    def close(self) -> None: ...


def connect(target: Target, clock: Clock, *, keep_text: bool = False) -> Client:
    """The client of a target: for two legs or for one, with a known wire format or a user's own. Raises InputError.

    `keep_text`: exchanges keep their answers' text until it is taken (`Exchange.take_text`)."""
    if target.protocol is not None:
        return DisaggregatedClient(target, clock, keep_text=keep_text)
    return HttpClient(target, clock, keep_text=keep_text)
