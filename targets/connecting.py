"""`connect`: the target that a spec names, whatever its kind."""

from __future__ import annotations

from .client.http_client import HttpClient
from .clock import Clock
from .disaggregated.client import DisaggregatedClient
from .exchange import Exchange
from .target import Client, Target
from .wire import custom


def connect(spec: Target, clock: Clock, kind: type[Exchange] = Exchange) -> Client:
    """A ready target: two legs or one, a user's own wire format or a known one. Raises InputError.

    `kind` Verbatim: the exchanges keep their answers' text."""
    if spec.protocol is not None:
        return DisaggregatedClient(spec, clock, kind)
    return HttpClient(spec, clock, custom.of(spec), kind)
