"""What a client has ready before its first request to a target: where it is (its URL taken apart, the proxy in between,
socket addresses resolved once), the TLS context, and the head of its requests with the target's key and headers filled
in; and the keys' way back out of what a server answers, for servers repeat them in errors.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, quote_plus, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from traces.errors import InputError
from traces.files import read_text, regular

from . import secrets
from .exchange import Exchange
from .rules import FILLED_IN, PORTS, loopback, port, sendable, split
from .secrets import masked
from .target import Target

SERVER_TEXTS = (  # fields of an exchange that hold a server's own words
    "error", "request_id", "model", "fingerprint", "finish_reason", "service_tier", "region", "ratelimit",
    "prefill_worker", "decode_worker",
)  # fmt: skip
SECRET, LITERAL = 6, 8  # characters: of the shortest secret that is looked for, of a literal header's value
BEGINNING, CUT = 8, 16  # characters that are found of a cut secret, of a cut value that may be several words
PUBLIC = re.compile("accept|content-|user-agent", re.IGNORECASE)  # headers of no secret
SCHEMES = ("bearer", "basic", "digest", "session", "token")
_WORDS = re.compile(r"[\s;,=]+")


@dataclass(frozen=True)
class Address:
    """What a connection needs to know. `sockaddrs` are (family, address) pairs in the order to try them."""

    scheme: str
    host: str  # for the certificate
    authority: str  # for the Host header, and for a proxy
    prefix: str  # of each path, without a final slash
    sockaddrs: tuple[tuple[int, object], ...]
    proxy: str = ""  # "", "forward" (absolute URLs) or "tunnel" (CONNECT)
    proxy_key: str = ""  # Proxy-Authorization's value

    def path(self, below: str) -> str:
        """`below` under the prefix; segments that both name (/v1, /openai/v1) are there once."""
        base, more = self.prefix.split("/")[1:], below.split("/")[1:]
        shared = next((n for n in range(min(len(base), len(more)), 0, -1) if base[-n:] == more[:n]), 0)
        path = "/" + "/".join(base + more[shared:])
        return f"http://{self.authority}{path}" if self.proxy == "forward" else path

    def connect(self) -> bytes:
        """The request for a proxy's tunnel."""
        key = f"Proxy-Authorization: {self.proxy_key}\r\n" if self.proxy_key else ""
        return f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n{key}\r\n".encode()


def address(url: str, environment: Mapping[str, str] | None = None) -> Address:
    """Takes a base URL apart and resolves it. Raises InputError. Forms: http://HOST:PORT/PREFIX, https://...,
    unix:///PATH/OF/SOCKET. The proxy comes from the environment (http_proxy, https_proxy, no_proxy); loopback addresses
    never go through one."""
    try:
        parts = split(url)
    except ValueError as error:
        raise InputError(f"expected {error}", where="" if "@" in url else masked(url)) from None
    if parts.scheme == "unix":
        return Address("http", "localhost", "localhost", "", ((socket.AF_UNIX, unquote(parts.path)),))
    host = parts.hostname or ""
    number = port(parts)
    shown = f"[{host}]" if ":" in host else host
    authority = shown if number == PORTS[parts.scheme] else f"{shown}:{number}"
    prefix = parts.path.rstrip("/")
    proxy = _proxy(parts.scheme, host, environment)
    if proxy is None:
        return Address(parts.scheme, host, authority, prefix, resolve(host, number))
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    key = "Basic " + base64.b64encode(user.encode()).decode() if user else ""
    sockaddrs = resolve(proxy.hostname or "", proxy.port or PORTS["http"])
    if parts.scheme == "https":
        return Address("https", host, f"{shown}:{number}", prefix, sockaddrs, "tunnel", key)
    return Address("http", host, authority, prefix, sockaddrs, "forward", key)


def _proxy(scheme: str, host: str, environment: Mapping[str, str] | None) -> SplitResult | None:
    if loopback(host):
        return None
    known = getproxies_environment() if environment is None else dict(environment)
    named = known.get(scheme)
    if not named or proxy_bypass_environment(host, known):
        return None
    proxy = urlsplit(named if "//" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise InputError(f"the environment names a proxy that is not http://HOST:PORT for {scheme}")
    return proxy


def resolve(host: str, port: int) -> tuple[tuple[int, object], ...]:
    """(family, address) pairs in the system's order. Raises InputError."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        problem = f"can't resolve the host name {host!r}: {error}"
        raise InputError(problem, remedy="check the URL and the network") from None
    return tuple(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in answers))


def tls_context(*, insecure: bool, ca_file: str | None) -> ssl.SSLContext:
    """A client's context: certificates are verified, against `ca_file` where one is given, unless `insecure`. Raises
    InputError."""
    try:
        made = ssl.create_default_context(cafile=ca_file and regular(ca_file))
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"can't be used as CA file: {error}", where=masked(ca_file or "")) from None
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    return made


class RequestHead:
    """What each request to a target begins with. Raises InputError where a key or a variable isn't there. `key_header`:
    the header that carries the API key as it is ("": Authorization, as a bearer's)."""

    def __init__(self, target: Target, address: Address, key_header: str = "") -> None:
        self._target, self._address = target, address
        self._secrets: dict[str, int] = {}  # secret -> how many characters of a cut one are found
        for held in filter(secrets.suspicious, secrets.HELD.values()):
            self._hide(held)
        self._standing = "".join(_line(*header) for header in self._lines(key_header))
        self._keys = self._pattern()

    def payload(self, path: str, headers: Sequence[tuple[str, str]], body: bytes, method: str = "POST") -> bytes:
        """One request as it goes onto the wire; `headers` are the wire format's own."""
        own = "".join(_line(*header) for header in headers)
        start = f"{method} {self._address.path(path)} HTTP/1.1\r\n"
        return f"{start}{self._standing}{own}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body

    def redact(self, exchange: Exchange) -> None:
        """Takes this target's keys out of what the server sent."""
        if self._keys is None:
            return
        for name in SERVER_TEXTS:
            if text := getattr(exchange, name):
                setattr(exchange, name, self.clean(text))

    def clean(self, text: str) -> str:
        """The text without this target's keys."""
        return text if self._keys is None else self._keys.sub("***", text)

    def _lines(self, key_header: str) -> list[tuple[str, str]]:
        """The lines that every request has; the user's headers replace ours of the same name."""
        target, address = self._target, self._address
        lines = [("Host", address.authority), ("User-Agent", "phaseload"), ("Content-Type", "application/json")]
        lines += [("Accept", "text/event-stream, application/json"), ("Accept-Encoding", "identity")]
        if key := _key(target):
            self._hide(key)
            lines.append((key_header, key) if key_header else ("Authorization", f"Bearer {key}"))
        if address.proxy == "forward" and address.proxy_key:
            self._hide(address.proxy_key)
            lines.append(("Proxy-Authorization", address.proxy_key))
        own = [(name, self._filled(name, value)) for name, value in target.headers]
        replaced = {name.lower() for name, _ in own}
        return [(name, value) for name, value in lines if name.lower() not in replaced] + own

    def _filled(self, name: str, value: str) -> str:
        """A header's value with its ${VARIABLE}s, which are secrets from then on."""

        def fill(match: re.Match[str]) -> str:
            secret = secrets.value(match[1])
            if secret is None:
                remedy = "export it on each machine that sends load, and name it in the header as ${VARIABLE}"
                raise secrets.absent(match[1], f"{self._target.name}: header {name}", remedy)
            if match[1] not in secrets.HELD or secrets.HEADER.search(name):
                self._hide(secret)
            elif len(secret) >= LITERAL and not PUBLIC.match(name):  # else it may be any word
                self._secrets.setdefault(secret, CUT)
            return secret

        return FILLED_IN.sub(fill, value)

    def _hide(self, secret: str) -> None:
        """Of a secret of several words each one: a server may echo the key without its "Bearer", or Basic's pair."""
        words = _WORDS.split(secret)
        with suppress(ValueError):
            pair = base64.b64decode(secret[6:]).decode("latin-1") if words[0].lower() == "basic" else ""
            words += [pair, pair.partition(":")[2]]
        self._secrets |= {secret: CUT} | dict.fromkeys(words, BEGINNING)

    def _pattern(self) -> re.Pattern[str] | None:
        """Finds the target's keys, and their beginnings where a bound cut them; short words would be everywhere."""
        known = {key: size for key, size in self._secrets.items() if len(key) >= SECRET and key.lower() not in SCHEMES}
        keys = {form: size for key, size in known.items() for form in _forms(key)}
        cut = {re.escape(key[:size]) + r"(?:[\w.~+/=%-]|\\/)*" for key, size in keys.items() if len(key) > size}
        forms = [*sorted(map(re.escape, keys), key=len, reverse=True), *sorted(cut, key=len, reverse=True)]
        return re.compile("|".join(forms), re.IGNORECASE) if keys else None  # names of headers come in lower case


def _forms(key: str) -> set[str]:
    """The key as it is, as JSON has it, and as a URL has it."""
    quoted = json.dumps(key)[1:-1]
    return {key, quoted, quoted.replace("/", "\\/"), quote(key), quote(key, safe=""), quote_plus(key)}


def _key(target: Target) -> str:
    """The API key from its file or variable; "" where the target names neither."""
    if target.api_key_file:
        try:
            key = secrets.HELD.get(target.api_key_file) or read_text(target.api_key_file).strip()
        except InputError:
            raise InputError("the API key can't be read", where=masked(target.api_key_file)) from None
        if not key:
            raise InputError("holds no API key", where=masked(target.api_key_file))
        if Path(target.api_key_file).is_fifo():  # `<(...)` gives it once, and every client and worker asks for it
            secrets.HELD[target.api_key_file] = key
        return key
    if target.api_key_env:
        key = os.environ.get(target.api_key_env, "").strip()
        if not key:
            raise secrets.absent(target.api_key_env, target.name)
        return key
    return ""


def _line(name: str, value: str) -> str:
    if not sendable(name, value):
        raise InputError(f"header {name!r} can't be sent: a line break, or a character beyond Latin-1")
    return f"{name}: {value}\r\n"
