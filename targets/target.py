"""`Target`: an endpoint as the user names it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import inf
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


TIMEOUTS = {  # the names that options, targets.toml, plan.json and run.json have for the fields of Limits
    "connect_timeout": "connect_s",
    "first_token_timeout": "first_token_s",
    "silence_timeout": "silence_s",
    "request_timeout": "request_s",
}


@dataclass(frozen=True)
class Limits:
    """How long the parts of an exchange may take, in seconds, each positive and finite. Raises InputError."""

    connect_s: float = 10.0
    first_token_s: float = 300.0  # from the request's last byte
    silence_s: float = 60.0  # between tokens
    request_s: float = 600.0  # the whole exchange

    def __post_init__(self) -> None:
        for name in TIMEOUTS.values():
            seconds = getattr(self, name)
            if not 0 < seconds < inf:
                raise InputError(f"must be positive and finite, not {seconds:g} s", where=name)


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
    limits: Limits = Limits()
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

    def to_json(self) -> dict[str, Any]:
        """The target as plan.json and run.json have it: flat, with the keys of TIMEOUTS in place of `limits`."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            flat |= {key: value[limit] for key, limit in TIMEOUTS.items()} if name == "limits" else {name: value}
        return flat

    @classmethod
    def from_json(cls, flat: dict[str, Any]) -> Target:
        """The target that `to_json` wrote. Raises InputError; KeyError or TypeError for what it never wrote."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()
        }
        limits = {limit: fields.pop(key) for key, limit in TIMEOUTS.items() if key in fields}
        headers = tuple((name, value) for name, value in fields.pop("headers", ()))
        return cls(**fields, headers=headers, limits=Limits(**limits))


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
