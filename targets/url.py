"""A target's URL: one reading of it, for options, files, connections and scrapes. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

PORTS = {"http": 80, "https": 443}


def split(url: str) -> SplitResult:
    """http://HOST:PORT/PREFIX, https://... or unix:///PATH/OF/SOCKET, taken apart.

    ValueError says what was expected; it never repeats the URL, which may hold a key.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        known, parts = False, urlsplit("")
    if not known and not (parts.scheme == "unix" and not parts.netloc and parts.path.strip("/")):
        raise ValueError("a URL such as http://host:8000, https://host or unix:///path/of/socket")
    if parts.username or parts.password:
        raise ValueError("a URL without a user or password in it")
    if parts.query or parts.fragment:
        raise ValueError("a URL without ? or #")
    if any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError("a URL without spaces or control characters")
    return parts


def port(parts: SplitResult) -> int:
    return parts.port or PORTS[parts.scheme]


def loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
