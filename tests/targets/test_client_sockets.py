"""The client on real sockets: how an exchange ends when servers, networks or we ourselves misbehave."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

from targets import connect, secrets
from targets.client.http_client import HttpClient, diagnostics
from targets.clock import Clock
from targets.exchange import Call, Exchange, Outcome
from targets.recording import record
from targets.target import Limits, Target
from targets.wire import WIRES
from tests.exchanges import make_call
from traces.errors import InputError

from .conftest import Serve
from .scripted import GOOD, Peer, Script, good
from .wire_cases import DONE, HEAD, TWO, frame, token


def test_a_port_where_nobody_listens(caller: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    exchange = caller(url).ask()
    assert (exchange.outcome, exchange.error) == (Outcome.REFUSED, "Connection refused")
    assert exchange.connected is None


def test_the_second_address_is_tried(serve: Serve, caller: Any) -> None:
    server = serve()
    one = caller(server.url)
    one.target.address = replace_addresses(one.target.address, server.sock.getsockname())
    assert one.ask().outcome is Outcome.OK
    assert one.target.preferred == 1, "what worked is tried first the next time"


def replace_addresses(address: Any, good_one: Any) -> Any:
    return replace(address, sockaddrs=((socket.AF_INET, ("127.0.0.1", 1)), (socket.AF_INET, good_one)))


# What a server does wrong, and how the exchange ends.


def cut(peer: Peer) -> None:
    peer.request()
    peer.say(GOOD[:-40], 0.02)


def reset(peer: Peer) -> None:
    peer.request()
    peer.say(GOOD[:-40], 0.05)
    peer.reset()


def hang_up(peer: Peer) -> None:
    peer.request()


def silent(peer: Peer) -> None:
    peer.request()
    peer.request()


def stalls(peer: Peer) -> None:
    peer.request()
    peer.say(GOOD[:-60])
    peer.request()


def keeps_alive_only(peer: Peer) -> None:
    peer.request()
    peer.head()
    while True:
        peer.say(frame(b": ping\n\n"), 0.02)


def never_ends(peer: Peer) -> None:
    peer.request()
    peer.head()
    while True:
        peer.say(frame(f"data: {token()}\n\n".encode()), 0.01)


def error_without_end(peer: Peer) -> None:
    peer.request()
    peer.say(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\nhalf")
    peer.request()


ENDS = [
    (cut, Outcome.TRUNCATED, "mid-answer"),
    (reset, Outcome.TRUNCATED, "reset"),
    (hang_up, Outcome.TRUNCATED, "before any answer"),
    (silent, Outcome.TIMEOUT, "no first token within 0.3 s"),
    (stalls, Outcome.STALLED, "no token for 0.2 s"),
    (keeps_alive_only, Outcome.TIMEOUT, "no first token"),
    (never_ends, Outcome.TIMEOUT, "not done within 0.6 s"),
    (error_without_end, Outcome.HTTP_ERROR, "500: half"),
]


@pytest.mark.parametrize(("script", "outcome", "says"), ENDS, ids=lambda x: getattr(x, "__name__", None))
def test_misbehaving_servers(serve: Serve, caller: Any, script: Script, outcome: Outcome, says: str) -> None:
    limits = Limits(first_token_timeout=0.3, silence_timeout=0.2, request_timeout=0.6 if script is never_ends else 9)
    exchange = caller(serve(script).url, limits=limits).ask()
    assert exchange.outcome is outcome, exchange.error
    assert says in exchange.error
    assert exchange.done is not None and exchange.sent is not None and exchange.done >= exchange.sent


@contextmanager
def full_listener() -> Iterator[socket.socket]:
    """A listener whose queue is full: the kernel drops what comes."""
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


def test_a_connect_that_never_ends(caller: Any) -> None:
    with full_listener() as listener:
        exchange = caller(f"http://127.0.0.1:{listener.getsockname()[1]}", limits=Limits(connect_timeout=0.2)).ask()
    assert (exchange.outcome, exchange.error) == (Outcome.TIMEOUT, "no connection within 0.2 s")
    assert exchange.connected is None and exchange.sent is None


def test_a_finished_answer_whose_body_never_ends(serve: Serve, caller: Any) -> None:
    """[DONE] is the end, wherever the last chunk stays."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.say(GOOD[:-5])
        peer.request()

    exchange = caller(serve(script).url).ask()
    assert exchange.outcome is Outcome.OK
    assert exchange.done - exchange.last_token < 100_000_000


def test_a_body_that_stays_open_after_the_answer_is_the_servers(serve: Serve, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.say(GOOD[:-5])
        time.sleep(0.1)
        peer.say(GOOD[-5:])

    exchange = caller(serve(script).url).ask()
    assert exchange.outcome is Outcome.OK
    assert exchange.done - exchange.last_token < 50_000_000 < exchange.body_end - exchange.done


def test_a_request_that_was_worked_on_is_never_sent_again(serve: Serve, caller: Any) -> None:
    """The server takes the second request, works on it and hangs up: that is a failure, not a connection that idled."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.say(GOOD)
        peer.request()
        time.sleep(0.1)

    server = serve(script)
    one = caller(server.url)
    one.ask()
    exchange = one.ask()
    assert (exchange.outcome, exchange.reconnected, server.connections) == (Outcome.TRUNCATED, False, 1)
    assert "before any answer" in exchange.error


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_that_was_closed_a_moment_ago_is_not_used(serve: Serve, caller: Any, farewell: bytes) -> None:
    """Its close is in the socket and no poll has seen it yet: nothing is sent on it."""
    server = serve(lambda peer: (peer.request(), peer.say(GOOD, 0.02), peer.say(farewell))[0])
    one = caller(server.url)
    one.ask()
    time.sleep(0.1)  # the loop stands still
    exchange = one.ask()
    assert (exchange.outcome, exchange.reused, exchange.reconnected) == (Outcome.OK, False, False)


def test_an_address_that_swallows_packets_does_not_hide_the_next(serve: Serve, caller: Any) -> None:
    server = serve()
    with full_listener() as hole:
        one = caller(server.url, limits=Limits(connect_timeout=1.0))
        addresses = ((socket.AF_INET, hole.getsockname()), (socket.AF_INET, server.sock.getsockname()))
        one.target.address = replace(one.target.address, sockaddrs=addresses)
        exchange = one.ask()
    assert exchange.outcome is Outcome.OK, exchange.error
    assert one.target.preferred == 1


def test_the_whole_requests_limit_holds_while_addresses_are_tried(caller: Any) -> None:
    with full_listener() as hole:
        limits = Limits(connect_timeout=60.0, request_timeout=0.3)
        one = caller(f"http://127.0.0.1:{hole.getsockname()[1]}", limits=limits)
        one.target.address = replace(one.target.address, sockaddrs=((socket.AF_INET, hole.getsockname()),) * 2)
        exchange = one.ask()
    assert (exchange.outcome, exchange.error) == (Outcome.TIMEOUT, "not done within 0.3 s")


# Several tokens in one read.


def test_tokens_written_at_once_are_exact(serve: Serve, caller: Any) -> None:
    """One write, one segment, one instant: an idle client's bracket has no width."""

    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.request()
            peer.head()
            for _ in range(5):
                time.sleep(0.02)
                peer.say(frame(f"data: {token()}\n\n".encode()) * 2)
            time.sleep(0.02)
            peer.say(frame(DONE.encode()) + b"0\r\n\r\n")

    one = caller(serve(script).url)
    for exchange in (one.ask(), one.ask()):
        assert list(exchange.token_events) == [2] * 5
        assert (exchange.first_after, exchange.last_after) == (exchange.first_token, exchange.last_token)


def test_tokens_that_come_with_the_connections_end_are_exact(serve: Serve, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.say(HEAD + b"Connection: close\r\n\r\n", 0.03)
        peer.say((TWO + TWO + DONE).encode())

    exchange = caller(serve(script).url).ask()
    assert (exchange.outcome, list(exchange.token_events)) == (Outcome.OK, [4])
    assert (exchange.first_after, exchange.last_after) == (exchange.first_token, exchange.last_token)


def test_tokens_that_waited_together_are_not(serve: Serve, caller: Any) -> None:
    """The loop stands still while the server writes twice: the first of the tokens may be as old as the last poll."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        time.sleep(0.05)
        for pause in (0.05, 0.05, 0.1, 0.05, 0.0):
            peer.say(frame(f"data: {token()}\n\n".encode()), pause)
        peer.say(frame(DONE.encode()) + b"0\r\n\r\n")

    one = caller(serve(script).url)
    one.start()
    gevent.sleep(0.02)
    time.sleep(0.13)
    exchange = one.wait()[0]
    assert max(exchange.token_events) > 1, "the loop did not stand still long enough: the test proves nothing"
    assert exchange.first_token - exchange.first_after > 40_000_000


def test_a_format_without_a_terminator_may_take_its_time(serve: Serve, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        for _ in range(4):
            peer.say(frame(b'data: {"text_output": " word"}\n\n'), 0.4)
        peer.say(b"0\r\n\r\n")

    exchange = caller(serve(script).url, endpoint_type="triton").ask()
    assert (exchange.outcome, sum(exchange.token_events)) == (Outcome.OK, 4)


def test_a_request_that_was_begun_to_be_answered_is_never_sent_again(serve: Serve, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.say(GOOD)
        peer.request()
        peer.say(b"HTTP/1.1 200")

    server = serve(script)
    one = caller(server.url)
    one.ask()
    exchange = one.ask()
    assert (exchange.outcome, exchange.reconnected, server.connections) == (Outcome.TRUNCATED, False, 1)


def test_an_idle_connection_that_the_server_closes_is_dropped(serve: Serve, caller: Any) -> None:
    server = serve(lambda peer: (peer.request(), peer.say(GOOD))[1])
    one = caller(server.url)
    one.ask()
    gevent.sleep(0.05)
    exchange = one.ask()
    assert (exchange.outcome, exchange.reused, exchange.reconnected) == (Outcome.OK, False, False)


def test_a_large_body_meets_a_slow_reader(serve: Serve, caller: Any) -> None:
    """Far more than a socket's buffer: the rest is written as the server takes it, other exchanges go on."""
    heard: list[int] = []

    def script(peer: Peer) -> None:
        time.sleep(0.1)
        heard.append(len(peer.request()))
        peer.say(GOOD)

    exchange = caller(serve(script).url).ask(prompt="word " * 3_000_000)
    assert exchange.outcome is Outcome.OK
    assert heard[0] > 15_000_000
    assert exchange.body_sent - exchange.sent > 50_000_000


def test_an_error_while_the_body_is_still_being_sent(serve: Serve, caller: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo long", 0.1)

    exchange = caller(serve(script).url).ask(prompt="word " * 3_000_000)
    assert (exchange.outcome, exchange.error) == (Outcome.HTTP_ERROR, "413: too long")


def test_servers_without_nodelay_are_acknowledged_at_once(serve: Serve, caller: Any) -> None:
    """Nagle's algorithm there and delayed acknowledgements here would clump the tokens of a connection used again."""

    def script(peer: Peer) -> None:
        while peer.request():
            time.sleep(0.005)
            peer.head()
            for _ in range(20):
                peer.say(frame(f"data: {token()}\n\n".encode()), 0.008)
            peer.say(frame(DONE.encode()) + b"0\r\n\r\n")

    one = caller(serve(script).url)
    one.ask()
    reads = 0
    for _ in range(6):  # a busy machine may merge the tokens of some exchanges; delayed acknowledgements did of each
        exchange = one.ask()
        assert exchange.reused
        reads = max(reads, len(exchange.token_at))
        if reads >= 18:
            break
    assert reads >= 18, "tokens came in clumps"


# Where the server is.


def test_ipv6(serve: Serve, caller: Any) -> None:
    try:
        server = serve(good, socket.AF_INET6, ("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    exchange = caller(server.url).ask()
    assert (exchange.outcome, exchange.unstamped) == (Outcome.OK, 0)


def test_a_unix_socket_has_user_space_time_and_says_so(serve: Serve, caller: Any, tmp_path: Path) -> None:
    before = diagnostics().reads_unstamped
    exchange = caller(serve(good, socket.AF_UNIX, str(tmp_path / "s")).url).ask()
    assert exchange.outcome is Outcome.OK
    assert exchange.unstamped >= 1
    assert diagnostics().reads_unstamped > before
    assert diagnostics().time_source in ("mixed", "user")


@pytest.mark.parametrize("option", [None, 9999], ids=["no such option", "refused by the kernel"])
def test_without_kernel_times_user_space_time_is_used_and_counted(
    serve: Serve, caller: Any, monkeypatch: Any, option: int | None
) -> None:
    monkeypatch.setattr("targets.linux.SO_TIMESTAMPNS", option)
    exchange = caller(serve().url).ask()
    assert exchange.outcome is Outcome.OK
    assert exchange.unstamped >= 1
    assert exchange.sent < exchange.first_token <= exchange.done
    assert exchange.first_lag is None, "nothing is known of the lag"


def test_a_path_prefix_and_a_trailing_v1(serve: Serve, caller: Any) -> None:
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        while request := peer.request():
            asked.append(request.split(b" ", 2)[1])
            peer.say(GOOD)

    url = serve(script).url
    for base in (url, url + "/", url + "/v1", url + "/v1/", url + "/openai/v1"):
        assert caller(base).ask().outcome is Outcome.OK
    assert asked == [b"/v1/chat/completions"] * 4 + [b"/openai/v1/chat/completions"]


# Faults of ours.


class Broken(WIRES["chat"].reader):  # type: ignore[misc]
    """A reader that raises what no server could make it raise."""

    def feed(self, event: Any, name: str, exchange: Exchange) -> int:
        raise ZeroDivisionError("injected")


def broken_body(call: Call, target: Any) -> dict[str, Any]:
    raise KeyError("injected")


@pytest.mark.parametrize("change", [{"reader": Broken}, {"body": broken_body}])
def test_a_fault_of_ours_ends_the_exchange_and_not_the_program(serve: Serve, change: Any) -> None:
    over: list[Exchange] = []
    target = HttpClient(Target("t", serve().url, "m"), Clock())
    target.wire = replace(WIRES["chat"], **change)
    for index in range(3):
        target.start(make_call(index, 0, "x", 1, 1), over.append)
    with gevent.Timeout(5):
        while len(over) < 3:
            gevent.sleep(0.01)
    target.close()
    assert {exchange.outcome for exchange in over} == {Outcome.INTERNAL_ERROR}
    assert "injected" in over[0].error


def test_a_callback_that_raises_or_blocks_harms_nobody_else(serve: Serve, caller: Any) -> None:
    one = caller(serve().url)

    def done(exchange: Exchange) -> None:
        one.over.append(exchange)
        if exchange.index == 0:
            raise ValueError("in the user's callback")
        gevent.sleep(0.02)

    for index in range(5):
        one.target.start(make_call(index, 0, "x", 1, 1), done)
    one.started = 5
    assert [exchange.outcome for exchange in one.wait()] == [Outcome.OK] * 5


def test_stop_ends_what_is_open(serve: Serve, caller: Any) -> None:
    one = caller(serve(silent).url)
    for _ in range(3):
        one.start()
    gevent.sleep(0.05)
    one.target.stop(Outcome.CUT)
    assert [(e.outcome, e.error) for e in one.wait()] == [(Outcome.CUT, "the run ended first")] * 3
    assert not one.target._busy


def test_close_hands_back_what_is_open(serve: Serve, caller: Any) -> None:
    one = caller(serve(silent).url)
    one.start()
    one.target.close()
    assert [exchange.outcome for exchange in one.over] == [Outcome.CUT]


# Keys and headers.


def test_keys_are_sent_and_never_shown(serve: Serve, caller: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret-1")
    monkeypatch.setenv("TEAM", "team-7")

    def script(peer: Peer) -> None:
        request = peer.request()
        body = b'{"error": {"message": "bad key sk-secret-1 of team-7"}}'
        assert b"Authorization: Bearer sk-secret-1\r\n" in request and b"X-Team: team-7\r\n" in request
        peer.say(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    exchange = caller(serve(script).url, api_key_env="THE_KEY", headers=(("X-Team", "${TEAM}"),)).ask()
    assert (exchange.outcome, exchange.error) == (Outcome.HTTP_ERROR, "401: bad key *** of ***")


def test_an_echoed_key_is_in_no_fact_of_the_row(serve: Serve, caller: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("LINE", "Bearer sk-secret-" + "x" * 80)
    key = b"sk-secret-" + b"x" * 80
    events = b'data: {"id":"%b","model":"m %b","system_fingerprint":"%b","choices":[{"delta":{"content":"a"},' % (
        (key,) * 3
    )
    events += b'"finish_reason":"%b"}]}\n\ndata: [DONE]\n\n' % key
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-ratelimit-of: %b\r\nx-region: %b\r\n" % (key, key)

    def script(peer: Peer) -> None:
        peer.request()
        peer.say(head + b"Content-Length: %d\r\n\r\n" % len(events) + events)

    exchange = caller(serve(script).url, headers=(("Authorization", "${LINE}"),)).ask()
    assert (exchange.outcome, exchange.model, exchange.region) == (Outcome.OK, "m ***", "***")
    assert "sk-secret" not in repr(exchange) and exchange.ratelimit == '{"x-ratelimit-of":"***…"}'


@pytest.mark.parametrize(
    ("header", "value", "echo"),
    [
        ("X-Team", "Vorn-Alpha-Kestrel-Moon", "Vorn-Alpha-Kestrel-Moon"),
        ("X-Team", "Vorn-Alpha-Kestrel-Moon", "x-limit-vorn-alpha-kestrel-moon"),
        ("Authorization", "Bearer plum/hollow+seven", "plum%2Fhollow%2Bseven"),
        ("Authorization", "Bearer plum/hollow+seven", "plum\\\\/hollow+seven"),
        ("Authorization", "Bearer plum/hollow+seven", "plum/hol"),
        ("Authorization", "Basic bWU6cGx1bWhvbGxvdw==", "me:plumhollow"),
        ("Authorization", "Basic bWU6cGx1bWhvbGxvdw==", "plumhollow"),
    ],
)
def test_a_held_headers_echo_is_hidden_however_it_is_coded(
    header: str, value: str, echo: str, serve: Serve, caller: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(secrets, "HELD", {})
    body = b'{"error": {"message": "no %b here"}}' % echo.encode()

    def script(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    error = caller(serve(script).url, headers=((header, secrets.header_value(header, value)),)).ask().error
    assert error.endswith("*** here") and "hol" not in error and "alpha" not in error.lower(), error


def test_a_key_that_json_escapes_is_in_no_error(serve: Serve, caller: Any, monkeypatch: Any) -> None:
    key = 'sk-SECRET+/"1234=\\5678'
    monkeypatch.setenv("ODD_KEY", key)
    said = json.dumps(json.dumps({"seen": key})).encode()  # an error that quotes JSON

    def script(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

    exchange = caller(serve(script).url, api_key_env="ODD_KEY").ask()
    assert "SECRET" not in exchange.error and "5678" not in exchange.error, exchange.error


def test_a_recorded_answer_holds_no_key(serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret-1")
    body = b'{"error": "no sk-secret-1 h\xc3\xa9"}'

    def script(peer: Peer) -> None:
        assert b"sk-secret-1" in peer.request()
        peer.say(b"HTTP/1.1 401 No\r\nx-region: sk-secret-1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    answer, _ = record(Target("x", serve(script).url, api_key_env="THE_KEY"), "a", 1)
    assert answer.body.decode() == '{"error": "no *** hé"}' and answer.headers["x-region"] == "***"


def test_a_header_of_the_user_replaces_ours(serve: Serve, caller: Any) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        heard.append(peer.request())
        peer.say(GOOD)

    caller(serve(script).url, headers=(("user-agent", "mine"),)).ask()
    assert heard[0].lower().count(b"user-agent") == 1
    assert b"user-agent: mine\r\n" in heard[0]


WRONG = [
    ({"url": "example.com"}, "expected a URL"),
    ({"url": "ftp://example.com"}, "expected a URL"),
    ({"url": "http://[::1"}, "expected a URL"),
    ({"url": "http://a b/"}, "not a URL|spaces"),
    ({"url": "http://user:pw@127.0.0.1/"}, "without a user"),
    ({"url": "http://no-such-host.invalid/"}, "can't resolve"),
    ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
    ({"api_key_file": "/nowhere/key"}, "key can't be read"),
    ({"headers": (("X-A", "1\r\nX-B: 2"),)}, "X-A without control characters"),
    ({"headers": (("X A", "1"),)}, "expected header names"),
    ({"headers": (("X-A", "${NOT_SET_ANYWHERE}"),)}, "NOT_SET_ANYWHERE"),
    ({"endpoint_type": "chatt"}, "expected one of chat, .*, got 'chatt'"),
    ({"url": "https://127.0.0.1", "ca_file": "/nowhere/ca.pem"}, "CA file"),
]


@pytest.mark.parametrize(("fields", "says"), WRONG, ids=lambda x: str(x)[:40])
def test_what_is_wrong_with_a_spec_is_said_at_once(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        HttpClient(Target(**{"name": "t", "url": "http://127.0.0.1:1", **fields}), Clock())


def test_two_answers_to_one_request(serve: Serve, caller: Any) -> None:
    """What comes after the end is nobody's: the connection is not used again."""
    server = serve(lambda peer: (peer.request(), peer.say(GOOD + GOOD), peer.request())[0])
    one = caller(server.url)
    assert [one.ask().outcome for _ in range(2)] == [Outcome.OK] * 2
    assert server.connections == 2


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
import gevent
from targets.client.http_client import HttpClient
from targets.clock import Clock
from targets import connect
from targets.exchange import Call
from targets import secrets
from targets.target import Target
from traces.request import Request
over, client = [], HttpClient(Target("t", sys.argv[1], "m"), Clock())
for index in range(60):
    call = Call(request=Request(index, 0, 1, 1), target="t", due=0, prompt="x")
    client.start(call, over.append)
while len(over) < 60:
    gevent.sleep(0.01)
print(*sorted({f"{exchange.outcome.value}: {exchange.error}" for exchange in over}), sep="\\n")
"""


def test_too_few_open_files_is_our_fault_and_says_what_to_do(serve: Serve) -> None:
    command = [sys.executable, "-c", FEW_FILES, serve().url]
    out = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    assert out[-1] == "ok: "
    assert out[0].startswith("internal_error: Too many open files: raise the limit of open files")


def test_open_files_are_raised_to_the_hard_limit(serve: Serve) -> None:
    program = "import resource as r; from targets.client.http_client import raise_open_files; "
    program += "r.setrlimit(r.RLIMIT_NOFILE, (50, 90)); print(raise_open_files(), r.getrlimit(r.RLIMIT_NOFILE))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True).stdout
    assert out == "90 (90, 90)\n"


def test_an_exchange_leaves_nothing_to_the_collector(serve: Serve, caller: Any) -> None:
    """No cycles: the collector's pauses would be the client's stalls."""
    one = caller(serve().url)
    for _ in range(20):
        one.ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            one.ask()
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_many_at_once_are_not_capped(serve: Serve, caller: Any) -> None:
    """300 requests in flight at one time: no pool holds any of them back."""

    def script(peer: Peer) -> None:
        peer.request()
        deadline = time.monotonic() + 5
        while server.connections < 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        peer.say(GOOD)

    server = serve(script)
    one = caller(server.url)
    for _ in range(300):
        one.start()
    assert [exchange.outcome for exchange in one.wait(20)] == [Outcome.OK] * 300
    assert server.connections == 300


def test_the_words_of_the_table_are_served_too(serve: Serve, caller: Any) -> None:
    """The script's good answer is the table's."""
    assert TWO.count("data:") == 2
    exchange = caller(serve().url).ask()
    assert (sum(exchange.token_events), exchange.chars) == (2, 4)


@pytest.mark.parametrize("decode", [good, lambda peer: peer.request()])
def test_a_concurrent_legs_failure_is_the_exchanges(serve: Serve, decode: Script) -> None:
    """Decode may answer without prefill's KV: what it makes up is no success."""

    def refuses(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops")

    prefill, over = serve(refuses).url, list[Exchange]()
    spec = Target("legs", prefill, "m", prefill=(prefill,), decode=(serve(decode).url,), protocol="sglang")
    target = connect(spec, Clock())
    target.start(make_call(0, 0, "words", 1, 4), over.append)
    with gevent.Timeout(10):
        while not over:
            gevent.sleep(0.01)
    target.close()
    assert over[0].outcome is (Outcome.HTTP_ERROR if decode is good else Outcome.TRUNCATED)
    assert over[0].error.endswith("prefill: 500: oops") and over[0].prefill_done is None
    assert over[0].usage_cached is None
