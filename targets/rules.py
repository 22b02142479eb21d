"""The rules for what a user names of a target, each by itself: URLs, headers, limits.
Pure, and imported for every `--help`, so nothing heavy stands here; `target.py` has them kept together.

The client frames its requests itself, so a header that would break its framing is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from math import inf, nan
from urllib.parse import SplitResult, urlsplit

from traces.errors import InputError, seconds

PORTS = {"http": 80, "https": 443}
OUR_HEADERS = {
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
    "expect", "accept-encoding",
}  # fmt: skip
KEYS_ELSEWHERE = "give a key as a header, or by api_key_env"
OURS_ALONE = "the client frames its requests itself, and says once which host they are for"
FILLED_IN = re.compile(r"\$\{(\w+)\}")  # in a header's value: from the environment, when a client is made
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class FieldError(InputError):
    """A mistake in one field of a target (of this name, where it has one by then) or of its limits; whoever read the
    field knows where it stands."""

    def __init__(self, field: str, message: str, *, target: str = "", remedy: str = "") -> None:
        self.field = field
        shown = target if target.isprintable() else repr(target)
        super().__init__(message, where=f"{shown}, field {field}" if target else field, remedy=remedy)


@dataclass(frozen=True)
class Limits:
    """Seconds, each positive and finite, by the same names in options, targets.toml and runs. Raises FieldError."""

    connect_timeout: float = 10.0
    first_token_timeout: float = 300.0  # from the instant at which the request is sent
    silence_timeout: float = 60.0  # between tokens
    request_timeout: float = 600.0  # the whole exchange

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            try:
                limit = nan if isinstance(value, bool) else seconds(value)
            except ValueError:
                limit = nan
            if not 0 < limit < inf:
                raise FieldError(field, f"expected a number of seconds above 0, and finite, got {value!r}")
            object.__setattr__(self, field, limit)


TIMEOUTS = tuple(field.name for field in fields(Limits))


def split(url: str) -> SplitResult:
    """http://HOST:PORT/PREFIX, https://... or unix:///PATH/OF/SOCKET, taken apart. ValueError says what was expected;
    it never repeats the URL, which may hold a key."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        known, parts = False, urlsplit("")
    a_socket = parts.scheme == "unix" and not parts.netloc and parts.path.strip("/")
    expect(known or a_socket, "a URL such as http://host:8000, https://host or unix:///path/of/socket")
    expect(not (parts.username or parts.password), "a URL without a user or password in it")
    expect(not (parts.query or parts.fragment), "a URL without ? or #")
    expect(not any(c.isspace() or not c.isprintable() for c in url), "a URL without spaces or control characters")
    return parts


def expect(holds: object, what: str) -> None:
    """Raises ValueError, which says what was expected, unless it holds."""
    if not holds:
        raise ValueError(what)


def port(parts: SplitResult) -> int:
    return parts.port or PORTS[parts.scheme]


def loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def sendable(name: str, value: str) -> bool:
    """Can a header go onto the wire: a name of HTTP's, and a value within Latin-1 and without line breaks?"""
    return bool(_NAME.fullmatch(name)) and not any(c in "\r\n\0" or ord(c) > 255 for c in value)


def own_header(headers: Iterable[tuple[str, str]]) -> str | None:
    """The first header that would break the client's own framing; one Host may replace ours, a second may not."""
    hosts = 0
    for name, _ in headers:
        hosts += name.lower() == "host"
        if name.lower() in OUR_HEADERS or hosts > 1:
            return name
    return None
