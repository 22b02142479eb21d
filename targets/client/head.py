"""The head of a target's requests: its standing lines, with the target's key and headers filled in; and the keys' way
back out of what a server answers, for servers repeat them in errors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from traces.errors import InputError

from ..address import Address
from ..exchange import Exchange
from ..rules import sendable
from ..target import Target

AGENT = "phaseload"
SERVER_TEXTS = (  # fields of an exchange that hold a server's own words
    "error", "request_id", "model", "fingerprint", "finish_reason", "service_tier", "region", "ratelimit",
    "prefill_worker", "decode_worker",
)  # fmt: skip
SECRET, BEGINNING = 6, 16  # characters: of the shortest secret that is looked for, of what is found of a long one
SCHEMES = ("bearer", "basic", "digest", "session", "token")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_WORDS = re.compile(r"[\s;,=]+")


class RequestHead:
    """What each request to a target begins with. Raises InputError where a key or a variable isn't there.

    `key_header`: the header that carries the API key as it is ("": Authorization, as a bearer's).
    """

    def __init__(self, target: Target, address: Address, key_header: str = "") -> None:
        self._target, self._address = target, address
        self._secrets: list[str] = []
        self._standing = "".join(_line(name, value) for name, value in self._lines(key_header))
        self._keys = self._pattern()

    def payload(self, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
        """One request as it goes onto the wire; `headers` are the wire format's own."""
        own = "".join(_line(name, value) for name, value in headers)
        head = f"POST {self._address.path(path)} HTTP/1.1\r\n{self._standing}{own}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1") + body

    def redact(self, exchange: Exchange) -> None:
        """Takes this target's keys out of what the server sent."""
        if self._keys is None:
            return
        for name in SERVER_TEXTS:
            text = getattr(exchange, name)
            if text:
                setattr(exchange, name, self.clean(text))

    def clean(self, text: str) -> str:
        """The text without this target's keys."""
        return text if self._keys is None else self._keys.sub("***", text)

    def _lines(self, key_header: str) -> list[tuple[str, str]]:
        """The lines that every request has; the user's headers replace ours of the same name."""
        target, address = self._target, self._address
        lines = [("Host", address.authority), ("User-Agent", AGENT), ("Content-Type", "application/json")]
        lines += [("Accept", "text/event-stream, application/json"), ("Accept-Encoding", "identity")]
        if key := _key(target):
            self._secrets.append(key)
            lines.append((key_header, key) if key_header else ("Authorization", f"Bearer {key}"))
        if address.proxy == "forward" and address.proxy_key:
            lines.append(("Proxy-Authorization", address.proxy_key))
        own = [(name, self._filled(name, value)) for name, value in target.headers]
        replaced = {name.lower() for name, _ in own}
        return [(name, value) for name, value in lines if name.lower() not in replaced] + own

    def _filled(self, name: str, value: str) -> str:
        """A header's value with its ${VARIABLE}s, which are secrets from then on."""

        def fill(match: re.Match[str]) -> str:
            secret = os.environ.get(match[1])
            if secret is None:
                problem = f"header {name}: the environment has no {match[1]}"
                remedy = "export it on each machine that sends load, and name it in the header as ${VARIABLE}"
                raise InputError(problem, where=self._target.name, remedy=remedy)
            self._secrets += {secret, *_WORDS.split(secret)}  # a server may echo the key without its "Bearer"
            return secret

        return _VARIABLE.sub(fill, value)

    def _pattern(self) -> re.Pattern[str] | None:
        """Finds the target's keys, and their beginnings where a bound cut them; short words would be everywhere."""
        secrets = {secret for secret in self._secrets if len(secret) >= SECRET and secret.lower() not in SCHEMES}
        secrets |= {json.dumps(secret)[1:-1] for secret in secrets}  # as an error that is JSON has it
        cut = {re.escape(secret[:BEGINNING]) + r"[\w.~+/=-]*" for secret in secrets if len(secret) > BEGINNING}
        forms = [*sorted(map(re.escape, secrets), key=len, reverse=True), *sorted(cut)]
        return re.compile("|".join(forms)) if secrets else None


def _key(target: Target) -> str:
    """The API key from its file or variable; "" where the target names neither."""
    if target.api_key_file:
        try:
            return Path(target.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InputError("the API key can't be read", where=target.api_key_file) from None
    if target.api_key_env:
        key = os.environ.get(target.api_key_env, "").strip()
        if not key:
            raise InputError(f"the environment has no {target.api_key_env}", where=target.name, remedy="export it")
        return key
    return ""


def _line(name: str, value: str) -> str:
    if not sendable(name, value):
        raise InputError(f"header {name!r} can't be sent: a line break, or a character beyond Latin-1")
    return f"{name}: {value}\r\n"
