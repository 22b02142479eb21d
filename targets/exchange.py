"""`Call`: one request made ready to be sent. `Client`: what sends it. `Exchange`: the raw facts of one call, and the
durations that follow. `Diagnostics`: what a client process knows of its own quality.

Instants are integer nanoseconds from the run's start (`targets.clock.Clock`), None where never reached; durations are
float seconds, derived here and nowhere stored. `reports.store.durations` has the same definitions over columns, and
a test holds the two equal. Definitions: docs/metrics.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from traces.request import NS_PER_S, Request
from traces.typed_json import LEFT_OUT

TEXT_LIMIT = 1 << 20  # characters of an answer that are kept to be counted


class Outcome(StrEnum):
    """How an exchange ended. A target's failure is data; `internal_error` alone is a fault of ours."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    CANCELLED = "cancelled"
    CUT = "cut"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request ready to be sent: the trace's row, its prompt, and its place in the plan."""

    request: Request  # the row of the trace
    target: str  # name of the target that it is sent to
    due: int  # ns from the run's start
    prompt: str | list[int] = ""  # text, or token ids where the endpoint takes them
    history: tuple[tuple[str, str], ...] = ()  # a conversation's earlier messages as (role, text), oldest first
    step: str = ""  # the load step of the plan that it belongs to
    planned: int | None = None  # the trace's own instant, ns from the run's start, where `due` follows a parent's end
    counted: bool = True  # due inside the step's window, not in its warm-up
    attempt: int = 1  # and one more for each retry
    leave_after: int | None = None  # token-bearing events after which its user leaves: it ends as cancelled

    @property
    def max_tokens(self) -> int:
        """Length of the answer to ask for: servers refuse to give none."""
        return max(1, self.request.output_tokens)


class Client(Protocol):
    """What sends calls to a target: it starts exchanges and hands each one back, once, when it is over."""

    def start(self, call: Call, done: Done) -> None:
        """Never blocks, and never raises for the endpoint's sake: `done` is called exactly once for each call, from an
        ordinary greenlet, with the finished Exchange."""

    def stop(self, outcome: Outcome) -> None:
        """Ends what is open with this outcome."""

    def close(self) -> None:
        """Ends what is still open as cut, and returns when all exchanges are handed back."""


Done = Callable[["Exchange"], None]


@dataclass(slots=True)
class Exchange:
    """One call as it happened. Raw facts are fields, what follows from them are properties."""

    call: Call

    # When it happened.
    started: int | None = None
    connected: int | None = None
    sent: int | None = None
    body_sent: int | None = None
    headers_at: int | None = None
    done: int | None = None
    body_end: int | None = None  # where the server kept the answer's body open after it was done
    reused: bool = False  # on a connection that was already open
    reconnected: bool = False  # that connection was closed before the request came: sent again on a fresh one
    stepped: bool = False  # CLOCK_REALTIME was stepped while it was open: its instants can't be compared

    # Tokens: one entry for each read that carried token-bearing events.
    token_at: array[int] = field(default_factory=lambda: array("q"))  # kernel instant of the read
    token_events: array[int] = field(default_factory=lambda: array("i"))  # token-bearing events in it
    first_tokens: int = 1  # tokens in the first token-bearing event, where the server counts them
    first_after: int | None = None  # bracket: last poll of the loop before the first token's read
    last_after: int | None = None
    first_lag: int | None = None  # read instant - kernel instant of the first token's read
    max_lag: int = 0
    unstamped: int = 0  # reads without a kernel timestamp: user-space time was used
    whole: bool = False  # the answer came in one piece, as JSON: there was no first token to be seen
    chars: int = 0  # characters of text received
    bytes_received: int = 0

    # How it ended.
    status: int | None = None
    outcome: Outcome = Outcome.CUT
    error: str = ""
    finish_reason: str | None = None
    unterminated: bool = False  # whole by its finish reason and its body's end; the terminator never came; in no row
    retry_after: float | None = None  # seconds, from the server's headers

    # The server's own account.
    usage_prompt: int | None = None
    usage_output: int | None = None
    usage_cached: int | None = None
    usage_reasoning: int | None = None
    tokenizer_output: int | None = None  # counted by a local tokenizer.json
    server_queue: float | None = None  # seconds, all None where not reported
    server_prefill: float | None = None
    server_transfer: float | None = None
    server_decode: float | None = None
    server_ttft: float | None = None
    server_total: float | None = None
    request_id: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    service_tier: str | None = None
    region: str | None = None
    ratelimit: str | None = None  # the rate-limit headers as one JSON object
    prefill_worker: str | None = None
    decode_worker: str | None = None

    # The prefill leg of a two-leg exchange; the fields above are then the decode leg's, `sent` the first leg's.
    prefill_sent: int | None = None
    prefill_done: int | None = None
    decode_sent: int | None = None

    text: list[str] | None = None  # pieces of the answer, kept until a local tokenizer has counted them; in no row

    def add_text(self, text: str) -> None:
        """Counts text that was received, and keeps it where it is to be counted by a tokenizer."""
        self.chars += len(text)
        if self.text is not None and self.chars <= TEXT_LIMIT:
            self.text.append(text)

    def take_text(self) -> str | None:
        """The whole text, which is then forgotten; None where there was none, or more than is kept."""
        text, self.text = "".join(self.text or ()), None
        return text if text and len(text) == self.chars else None

    @property
    def index(self) -> int:
        return self.call.request.index

    @property
    def target(self) -> str:
        return self.call.target

    @property
    def step(self) -> str:
        return self.call.step

    @property
    def due(self) -> int:
        return self.call.due

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def first_token(self) -> int | None:
        """The instant of the first token-bearing read, ns from the run's start; None where no token came."""
        return self.token_at[0] if self.token_at else None

    @property
    def last_token(self) -> int | None:
        """The instant of the last token-bearing read, ns."""
        return self.token_at[-1] if self.token_at else None

    @property
    def output_count(self) -> int:
        """Tokens given: the server's usage, else a local tokenizer's count, else token-bearing events."""
        if self.usage_output is not None:
            return self.usage_output
        if self.tokenizer_output is not None:
            return self.tokenizer_output
        return sum(self.token_events)

    @property
    def lateness(self) -> float | None:
        """Seconds from the instant at which it was due until the client started it."""
        return _span(self.due, self.started)

    @property
    def ttft(self) -> float | None:
        """Seconds from sent to the first token; None where the answer came whole, without one."""
        return None if self.whole else _span(self.sent, self.first_token)

    @property
    def ttft_from_due(self) -> float | None:
        """TTFT counted from the instant at which the request was due: seconds, lateness included."""
        return None if self.whole else _span(self.due, self.first_token)

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first event; None where there is no such token."""
        later = self.output_count - self.first_tokens
        if later <= 0 or len(self.token_at) < 2:
            return None
        return (self.token_at[-1] - self.token_at[0]) / NS_PER_S / later

    @property
    def e2e(self) -> float | None:
        """Seconds from sent to the last token."""
        return _span(self.sent, self.last_token)

    def gaps(self) -> Iterator[float]:
        """ITL: one gap for each token-bearing read after the first."""
        for before, after in zip(self.token_at, self.token_at[1:], strict=False):
            yield (after - before) / NS_PER_S


def _span(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else (end - start) / NS_PER_S


# What a client process knows of its own quality: `targets.client.loop` counts it, run.json keeps it.


@dataclass(frozen=True)
class ClockStep:
    """The clock was set: when, in seconds of the run, and by how much."""

    at_s: float
    step_s: float


@dataclass(frozen=True)
class SafeLoad:
    """A load that `phaseload certify` found to be measured truly; it covers each load that has no more of either.
    `rate`: chunks/s."""

    streams: int
    rate: float

    def covers(self, other: SafeLoad, slack: float = 1.0) -> bool:
        return other.streams <= slack * self.streams and other.rate <= slack * self.rate

    def __str__(self) -> str:
        return f"{self.rate:,.0f} chunks/s of {self.streams:,.0f} streams"


@dataclass(frozen=True)
class Certified:
    """The machine's certificate (`phaseload certify`): when it was made (ISO 8601), and the safe loads."""

    created: str
    safe: tuple[SafeLoad, ...]


FULL = 0.85  # share of its core, in its busiest second, that a client at its limit takes
WAITED = 0.05  # share of the time without a core, above which the machine was busy


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Of one process since its first client was made."""

    time_source: Literal["kernel", "mixed", "user"]  # of reads' instants
    reads: int
    reads_unstamped: int  # without a kernel time
    reads_fast: int  # read by `fast_path`
    most_tokens_per_s: float  # of the busiest second
    most_streams: int  # open at once
    connections_opened: int
    connections_reused: int
    reconnected: int
    internal_faults: int
    stalls_over_10ms: int  # of the event loop
    longest_stall_s: float
    cpu_s: float
    wall_s: float
    open_files_limit: int
    collections: int  # of garbage
    collections_s: float
    longest_collection_s: float
    clock_steps: tuple[ClockStep, ...]
    busiest_core: float | None = field(default=None, metadata=LEFT_OUT)  # share of a core in the busiest second
    waited_s: float | None = field(default=None, metadata=LEFT_OUT)  # ready to run, and without a core
    certificate: Certified | None = field(default=None, metadata=LEFT_OUT)
    beyond_certificate: str | None = field(default=None, metadata=LEFT_OUT)  # why; "" for a load within it
