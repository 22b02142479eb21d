"""What of a user's own may stand in a request: headers, and fields of the body. Pure.

The client frames its requests itself, so a header that would break its framing is refused. All that a target says is
stored with the run, so a secret is named (`${VARIABLE}`, a variable, a file) and never held: what a header's or a
field's name says to be a secret may not stand there as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SECRET_HEADER = re.compile("auth|key|token|secret|cookie|passw|credential|session|signature", re.IGNORECASE)
SECRET_FIELD = re.compile(
    "api_?key|^key$|(^|access_?|auth_?|bearer_?)token$|secret|passw|authori|credential", re.IGNORECASE
)
OUR_HEADERS = {
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
    "expect", "accept-encoding",
}  # fmt: skip
KEYS_ELSEWHERE = "give a key as a header, or by api_key_env"
OURS_ALONE = "the client frames its requests itself, and says once which host they are for"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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
        if (deeper := literal_field(value)) is not None:
            return deeper
    return None
