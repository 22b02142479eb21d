"""`Target`: an endpoint as the user names it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from traces.errors import InputError

SECRET_HEADER = re.compile("auth|key|token|secret|cookie|passw|credential|session|signature", re.IGNORECASE)
SECRET_FIELD = re.compile(
    "api_?key|^key$|(^|access_?|auth_?|bearer_?)token$|secret|passw|authori|credential", re.IGNORECASE
)
OUR_HEADERS = {
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
    "expect", "accept-encoding",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A target as the user names it; JSON-able without secrets: keys are named by variable or file, never held."""

    name: str
    url: str  # base URL: scheme, host, port and an optional path prefix (a trailing /v1 is understood)
    model: str = ""
    endpoint_type: str = "chat"  # a key of targets.wire.WIRES, or the file of a custom format
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
    prefill: tuple[str, ...] = ()  # two legs: the pools' URLs
    decode: tuple[str, ...] = ()
    protocol: str | None = None
    local_prefill_below: int = 0  # prompts shorter than this go straight to decode
    metrics: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    price_per_hour: float | None = None
    watts: float | None = None
    format: dict[str, Any] = field(default_factory=dict)  # a custom format's tables, once a plan carries them

    def __post_init__(self) -> None:
        if (header := own_header(self.headers)) is not None:
            raise InputError(f"header {header} can't be set: {OURS_ALONE}", where=self.name)
        if (header := literal_header(self.headers)) is not None:
            raise InputError(f"header {header}: expected its secret as ${{VARIABLE}}", where=self.name)
        if (key := literal_field(self.extra_body)) is not None:
            raise InputError(f"extra body: {key} would be stored with the run", where=self.name, remedy=KEYS_ELSEWHERE)


KEYS_ELSEWHERE = "give a key as a header, or by api_key_env"
OURS_ALONE = "the client frames its requests itself, and says once which host they are for"


def own_header(headers: Iterable[tuple[str, str]]) -> str | None:
    """The first header that would break the client's own framing; one Host may replace ours, a second may not."""
    hosts = 0
    for name, _ in headers:
        hosts += name.lower() == "host"
        if name.lower() in OUR_HEADERS or hosts > 1:
            return name
    return None


def literal_header(headers: Iterable[tuple[str, str]]) -> str | None:
    """The first header whose name says that it holds a secret and whose value isn't a ${VARIABLE}."""
    return next((name for name, value in headers if SECRET_HEADER.search(name) and "${" not in value), None)


def literal_field(body: object) -> str | None:
    """The first key of a JSON value, however deep, whose name says that its text is a secret."""
    if isinstance(body, list):
        return next(filter(None, map(literal_field, body)), None)
    if not isinstance(body, dict):
        return None
    for key, value in body.items():
        if isinstance(value, str) and value and SECRET_FIELD.search(key.replace("-", "_")):
            return str(key)
        if (found := literal_field(value)) is not None:
            return found
    return None
