"""Where a target is: its URL taken apart, the proxy in between, and the socket addresses, resolved once."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from traces.errors import InputError

from .rules import PORTS, loopback, port, split


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


def address(url: str, environment: Mapping[str, str] | None = None) -> Address:
    """Takes a base URL apart and resolves it. Raises InputError.

    Forms: http://HOST:PORT/PREFIX, https://..., unix:///PATH/OF/SOCKET. The proxy comes from the environment
    (http_proxy, https_proxy, no_proxy); loopback addresses never go through one.
    """
    try:
        parts = split(url)
    except ValueError as error:
        raise InputError(f"expected {error}", where="" if "@" in url else url) from None
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
    return Address(
        parts.scheme,
        host,
        f"{shown}:{number}" if parts.scheme == "https" else authority,
        prefix,
        resolve(proxy.hostname or "", proxy.port or PORTS["http"]),
        proxy="tunnel" if parts.scheme == "https" else "forward",
        proxy_key="Basic " + base64.b64encode(user.encode()).decode() if user else "",
    )


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
        raise InputError(
            f"can't resolve the host name {host!r}: {error}", remedy="check the URL and the network"
        ) from None
    return tuple(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in answers))
