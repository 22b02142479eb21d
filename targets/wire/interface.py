"""What a wire format is: the request's body out, events in. Pure: no socket, no loop, no clock.

A wire format is a small module with these names:

    def request(call: Call, target: RequestFields) -> tuple[str, list[tuple[str, str]], bytes]
        path below the base URL, headers of the format, body
    class Reader
        def feed(self, event: bytes of one SSE event's data, name: str of its `event:` field,
                 exchange: Exchange) -> int
            token count of the event: 0 where it carries no token, 1 where the server gives no count. (Where a later
            event has the first one's count, the reader corrects `exchange.first_tokens`.)
            Facts (usage, ids, timings, finish reason) go straight onto the exchange.
            Raises WireError for an event that can't be understood or that reports a failure of the server.
        def answer(self, body: bytes, exchange: Exchange) -> int
            the same for a whole JSON answer that is not a stream
        finished: bool
            the terminator has been seen; a body that ends before it is `truncated`
        open_ended: bool (optional)
            the format has no terminator: the answer is whole when its body is
    KEY_HEADER (optional)
        the header that carries the API key as it is; without it `Authorization: Bearer KEY`

Facts in headers (request id, rate limits, retry-after) are read by `headers.note`, an error's answer by
`lenient.complaint_in`, for every answer of any format.
Everything a server sends is hostile: bounded and never trusted to have the right type.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..exchange import Outcome

RATE_LIMIT_STATUSES = frozenset({429, 498, 529})


class RequestFields(Protocol):
    """What of a target stands in each request's body."""

    @property
    def model(self) -> str: ...

    @property
    def extra_body(self) -> dict[str, Any]: ...

    @property
    def ignore_eos(self) -> bool | None:
        """None: as the endpoint type allows."""


class WireError(Exception):
    """An event that can't be used: `outcome` says how the exchange ends (malformed, rate_limited, http_error)."""

    def __init__(self, message: str, outcome: Outcome = Outcome.MALFORMED) -> None:
        super().__init__(message)
        self.outcome = outcome
