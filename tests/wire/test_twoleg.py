"""Two legs driven by the client, on simulated endpoints that hand over as vLLM's NIXL connector does.

The pools are servers of their own, each in a process of its own; what goes wrong on either leg ends the exchange.
The other protocols: tests/targets/test_twoleg_servers.py.
"""

import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager

import gevent
import pytest

from targets import connect
from targets.clock import Clock
from targets.exchange import Outcome
from targets.target import Target
from tests.exchanges import make_call
from tests.exchanging import asks, run
from traces.errors import InputError


@contextmanager
def simulated(name, *options):
    command = [sys.executable, "-m", "targets.simulated", name, "--model", "llama3-8b", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def pools():
    """Two prefill servers and two decode servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(simulated("h100-disagg")) for _ in range(4)]


def spec(prefill, decode, **more):
    return Target("legs", decode[0], "llama3-8b", prefill=tuple(prefill), decode=tuple(decode), protocol="nixl", **more)


def stopped_after(seconds):
    def stop(target):
        gevent.sleep(seconds)
        target.stop(Outcome.CUT)

    return stop


def test_each_leg_has_its_instants(pools):
    exchanges = run(spec(pools[:2], pools[2:]), asks(16))
    for x in exchanges:
        assert (x.outcome, x.error, x.usage_output, x.usage_prompt) == (Outcome.OK, "", 8, 50)
        assert x.sent == x.prefill_sent < x.prefill_done <= x.decode_sent < x.first_token <= x.last_token <= x.done
        assert x.started <= x.connected <= x.sent
        assert x.finish_reason == "length" and x.status == 200


@pytest.mark.parametrize(("prefill", "decode"), [(2, 2), (2, 3), (1, 2), (3, 1)])
def test_pools_go_round_robin_and_meet_in_every_pair(pools, prefill, decode):
    exchanges = run(spec(pools[:prefill], pools[-decode:]), asks(2 * prefill * decode))
    pairs = Counter((x.prefill_worker, x.decode_worker) for x in exchanges)
    assert len(pairs) == prefill * decode
    assert set(pairs.values()) == {2}


def test_short_prompts_go_straight_to_decode(pools):
    short, long = run(spec(pools[:1], pools[2:3], local_prefill_below=20), [*asks(1, words=19), *asks(2, words=20)[1:]])
    assert short.outcome is long.outcome is Outcome.OK
    assert short.prefill_sent is None and short.decode_sent == short.sent and short.usage_output == 8
    assert short.decode_worker == pools[2].removeprefix("http://")
    assert long.prefill_done is not None


def test_a_failure_of_either_leg_ends_the_exchange(pools):
    nobody = "http://127.0.0.1:9"
    (x,) = run(spec([nobody], pools[2:3]), asks(1))
    assert x.outcome is Outcome.REFUSED and x.error.startswith("prefill: ") and x.done is not None
    (x,) = run(spec(pools[:1], [nobody]), asks(1))
    assert x.outcome is Outcome.REFUSED and not x.error.startswith("prefill: ")
    assert x.prefill_done is not None and x.first_token is None
    with simulated("h100-disagg", "--fault", "http500=1") as broken:
        (x,) = run(spec([broken], pools[2:3]), asks(1))
        assert (x.outcome, x.status) == (Outcome.HTTP_ERROR, 500) and x.prefill_done is None


def test_a_server_without_a_connector(pools):
    with simulated("groqrack-published") as plain:
        (x,) = run(spec([plain], pools[2:3]), asks(1))
    assert x.outcome is Outcome.HTTP_ERROR and "connector" in x.error


def test_stop_ends_both_legs(pools):
    exchanges = run(spec(pools[:1], pools[2:3]), asks(8, words=2000, tokens=2000), stopped_after(0.3))
    assert {x.outcome for x in exchanges} == {Outcome.CUT}
    early = run(spec(pools[:1], pools[2:3]), asks(4, words=7000, tokens=50), stopped_after(0.01))
    assert {x.outcome for x in early} == {Outcome.CUT}
    assert all(x.decode_sent is None for x in early)


def test_a_user_who_leaves_leaves_the_decode_leg(pools):
    (x,) = run(spec(pools[:1], pools[2:3]), asks(1, tokens=50, leave_after=3))
    assert x.outcome is Outcome.CANCELLED and sum(x.token_events) == 3 and x.prefill_done is not None


def test_an_ask_that_no_chat_takes_is_our_fault_and_not_a_hang(pools):
    (x,) = run(spec(pools[:1], pools[2:3]), [make_call(0, 0, [1, 2, 3], 3, 8)])
    assert x.outcome is Outcome.INTERNAL_ERROR


def test_legs_that_are_not_whole():
    with pytest.raises(InputError, match="two legs need"):
        connect(Target("x", "http://127.0.0.1:1", protocol="nixl"), Clock())
    with pytest.raises(InputError, match=r"no engine id at http://127\.0\.0\.1:9/query"):
        labels = {"bootstrap_port": "9"}
        one = ("http://127.0.0.1:1",)
        connect(Target("x", one[0], prefill=one, decode=one, protocol="mooncake", labels=labels), Clock())


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"garbage not http\r\n\r\n", "not HTTP"),
        (b"", "before any answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "before its end"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", "expected a JSON object"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"0": {"engine": 1}}', "its answer names none"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno", "HTTP 404"),
    ],
)
def test_a_bootstrap_server_that_is_none_is_a_mistake_with_its_remedy(says, why, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # never on the way to this machine

    def serve(listening):
        with listening.accept()[0] as peer:
            peer.recv(1 << 16)
            peer.sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        labels, one = {"bootstrap_port": str(listening.getsockname()[1])}, ("http://127.0.0.1:1",)
        with pytest.raises(InputError, match=rf"{why}.*\(set labels = "):
            connect(Target("x", one[0], prefill=one, decode=one, protocol="mooncake", labels=labels), Clock())
