"""https and proxies, against real ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

import pytest

from targets.address import address
from targets.client.blocking import get
from targets.exchange import Outcome
from traces.errors import InputError

from .conftest import Secure
from .scripted import GOOD, Peer, Scripted, good
from .wire_cases import DONE, frame, token


def test_a_custom_authority(secure: Secure, caller: Any) -> None:
    server, ca_file = secure()
    one = caller(server.url, ca_file=ca_file)
    first, second = one.ask(), one.ask()
    assert (first.outcome, second.outcome, second.reused) == (Outcome.OK, Outcome.OK, True)
    assert first.unstamped == second.unstamped == 0, "TLS keeps the kernel's times"
    assert first.started <= first.connected <= first.sent <= first.first_token


def test_an_unknown_authority_is_refused(secure: Secure, caller: Any) -> None:
    exchange = caller(secure()[0].url).ask()
    assert exchange.outcome is Outcome.REFUSED
    assert "certificate can't be verified" in exchange.error


def test_a_certificate_for_somebody_else_is_refused(secure: Secure, caller: Any) -> None:
    server, ca_file = secure(good, "example.org")
    exchange = caller(server.url, ca_file=ca_file).ask()
    assert exchange.outcome is Outcome.REFUSED
    assert "IP address mismatch" in exchange.error


def test_insecure(secure: Secure, caller: Any) -> None:
    assert caller(secure(good, "example.org")[0].url, insecure=True).ask().outcome is Outcome.OK


def test_https_to_a_port_that_speaks_http(caller: Any) -> None:
    server = Scripted(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    exchange = caller(server.url.replace("http:", "https:"), insecure=True).ask()
    server.close()
    assert (exchange.outcome, exchange.error[:4]) == (Outcome.REFUSED, "TLS:")


def test_http_to_a_port_that_speaks_https(secure: Secure, caller: Any) -> None:
    exchange = caller(secure()[0].url.replace("https:", "http:")).ask()
    assert exchange.outcome in (Outcome.TRUNCATED, Outcome.MALFORMED)


def test_a_stream_over_tls_goes_by_its_frame(secure: Secure, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        for _ in range(50):
            peer.say(frame(f"data: {token()}\n\n".encode()), 0.002)
        peer.say(frame(DONE.encode()) + b"0\r\n\r\n")
        peer.request()

    server, ca_file = secure(script)
    exchange = caller(server.url, ca_file=ca_file).ask(prompt="word " * 500_000)
    assert (exchange.outcome, sum(exchange.token_events), exchange.chars) == (Outcome.OK, 50, 100)


def test_cut_without_a_farewell(secure: Secure, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.say(GOOD[:-40])
        peer.sock.close()

    server, ca_file = secure(script)
    assert caller(server.url, ca_file=ca_file).ask().outcome is Outcome.TRUNCATED


# Proxies.


def pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def tunnel(to: Scripted, seen: list[bytes]) -> Any:
    """A proxy that takes CONNECT, wherever it is asked to, to the test's own server."""

    def script(peer: Peer) -> None:
        seen.append(peer.request())
        peer.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(to.sock.getsockname()) as far:
            threading.Thread(target=pipe, args=(far, peer.sock), daemon=True).start()
            pipe(peer.sock, far)

    return script


def through(monkeypatch: Any, proxy: Scripted) -> None:
    """The environment names the proxy; `endpoint.test` is where the endpoint is."""
    host = "user:pass%40word@" + proxy.url.removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://{host}")
    monkeypatch.setenv("https_proxy", f"http://{host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


KEY = b"Proxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=\r\n"


def test_https_goes_through_a_tunnel(secure: Secure, caller: Any, monkeypatch: Any) -> None:
    server, ca_file = secure(good, "endpoint.test")
    seen: list[bytes] = []
    proxy = Scripted(tunnel(server, seen))
    through(monkeypatch, proxy)
    one = caller("https://endpoint.test", ca_file=ca_file)
    assert [one.ask().outcome for _ in range(2)] == [Outcome.OK] * 2
    proxy.close()
    assert len(seen) == 1
    assert seen[0].startswith(b"CONNECT endpoint.test:443 HTTP/1.1\r\nHost: endpoint.test:443\r\n")
    assert KEY in seen[0]
    assert KEY not in b"".join(server.requests)


def test_metrics_take_the_same_tunnel_and_trust_the_same_authority(secure: Secure, monkeypatch: Any) -> None:
    def script(peer: Peer) -> None:
        assert peer.request().startswith(b"GET /metrics HTTP/1.1\r\n")
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nup 1")

    server, ca_file = secure(script, "endpoint.test")
    seen: list[bytes] = []
    proxy = Scripted(tunnel(server, seen))
    through(monkeypatch, proxy)
    assert get("https://endpoint.test/metrics", 5.0, ca_file=ca_file) == b"up 1"
    assert get("https://endpoint.test/metrics", 5.0, insecure=True) == b"up 1"
    with pytest.raises(ssl.SSLCertVerificationError):
        get("https://endpoint.test/metrics", 5.0)
    proxy.close()
    assert all(KEY in request for request in seen)


def test_http_goes_through_a_forward_proxy(caller: Any, monkeypatch: Any) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while request := peer.request():
            seen.append(request)
            peer.say(GOOD)

    proxy = Scripted(script)
    through(monkeypatch, proxy)
    assert caller("http://endpoint.test:8000/base").ask().outcome is Outcome.OK
    proxy.close()
    assert seen[0].startswith(b"POST http://endpoint.test:8000/base/v1/chat/completions HTTP/1.1\r\n")
    assert b"Host: endpoint.test:8000\r\n" in seen[0] and KEY in seen[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required"),
        (b"nonsense\r\n\r\n", "nonsense"),
        (b"x" * 40000, "never ends"),
        (b"", "by the proxy"),
    ],
)
def test_a_proxy_that_refuses(caller: Any, monkeypatch: Any, answer: bytes, says: str) -> None:
    proxy = Scripted(lambda peer: (peer.request(), peer.say(answer, 0.05))[1])
    through(monkeypatch, proxy)
    exchange = caller("https://endpoint.test", insecure=True).ask()
    proxy.close()
    assert exchange.outcome is Outcome.REFUSED
    assert says in exchange.error


PROXIES = {"http": "http://proxy.test:3128", "https": "proxy.test:3128", "no": "endpoint.test,.inner.test"}


def test_who_goes_through_a_proxy(monkeypatch: Any) -> None:
    monkeypatch.setattr("targets.address.resolve", lambda host, port: ((socket.AF_INET, (host, port)),))

    def where(url: str) -> tuple[str, Any]:
        found = address(url, PROXIES)
        return found.proxy, found.sockaddrs[0][1]

    assert where("http://other.test") == ("forward", ("proxy.test", 3128))
    assert where("https://other.test") == ("tunnel", ("proxy.test", 3128))
    for near in (
        "http://endpoint.test",
        "https://a.inner.test",
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]",
    ):
        assert where(near)[0] == ""
    with pytest.raises(InputError, match="proxy"):
        address("http://other.test", {"http": "socks5://proxy.test:1080"})
