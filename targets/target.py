"""`Target`: where requests go. `Ask`: one request made ready for it. `Spec`: the target as a user names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .exchange import Exchange, Outcome


@dataclass(frozen=True, slots=True)
class Ask:
    """One request ready to be sent: the trace's row, its prompt, and its place in the plan.

    `prompt` is text, or token ids where the endpoint takes them. `due` and `planned` are nanoseconds from the run's
    start. `history` holds a conversation's earlier messages as (role, text) pairs, oldest first. `leave_after`: the
    user leaves after that many token-bearing events (None: stays to the end); the exchange then ends as cancelled.
    """

    index: int
    due: int
    prompt: str | list[int]
    prompt_tokens: int
    output_tokens: int
    step: str = ""
    session: int = -1
    turn: int = 0
    planned: int | None = None
    counted: bool = True
    history: tuple[tuple[str, str], ...] = ()
    attempt: int = 1
    leave_after: int | None = None


@dataclass(frozen=True)
class Spec:
    """A target as the user names it; JSON-able without secrets: keys are named by variable or file, never held."""

    name: str
    url: str  # base URL: scheme, host, port and an optional path prefix (a trailing /v1 is understood)
    model: str = ""
    endpoint_type: str = "chat"  # a key of targets.wire.WIRES
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # values may hold ${VARIABLE}, filled in at the last moment
    extra_body: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool | None = None  # None: as the endpoint type allows
    insecure: bool = False
    ca_file: str | None = None
    connect_timeout: float = 10.0  # seconds
    first_token_timeout: float = 300.0
    silence_timeout: float = 60.0  # between tokens
    request_timeout: float = 600.0
    no_itl: bool = False
    prefill: tuple[str, ...] = ()  # two legs: the pools' URLs
    decode: tuple[str, ...] = ()
    protocol: str | None = None
    local_prefill_below: int = 0  # prompts shorter than this go straight to decode
    metrics: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    price_per_hour: float | None = None
    watts: float | None = None


class Target(Protocol):
    """Starts exchanges and hands each one back, once, when it is over.

    `start` never blocks and never raises for the endpoint's sake: `done` is called exactly once for each call, from
    an ordinary greenlet, with the finished Exchange. `stop` ends what is open with the given outcome.
    """

    name: str

    def start(self, ask: Ask, done: Callable[[Exchange], None]) -> None: ...

    def stop(self, outcome: Outcome) -> None: ...

    def close(self) -> None: ...
