"""Every two-leg protocol from end to end: our client, two prefill and two decode servers that hold to its rules.

As in a deployment each server has an address of its own and all have the same port: here 127.0.0.1 to 127.0.0.4.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import gevent
import pytest

from targets.exchange import Outcome
from targets.simulated.build import build
from targets.simulated.server.leg_protocols import PROTOCOLS as SPOKEN
from targets.target import Target
from targets.wire.protocols import PROTOCOLS
from tests import exchanging
from tests.exchanging import run

LINK = ("--set", "link.bandwidth=0.5", "--set", "link.overlap=0")
PORTS = ("bootstrap_port", "prefill_zmq_port", "decode_zmq_port", "receiver_init_port", "receiver_alloc_port")
OTHER = "f" * 32  # the name of another exchange
# Starting an interpreter for each of 36 servers takes longer than all tests: one imports the server and forks for each.
NURSERY = """
import json, os, signal, sys
from targets.simulated.__main__ import main
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    said, *words = json.loads(line)
    if not os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        said = os.open(said, os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.close(said)
        print(os.getpid(), flush=True)
        sys.exit(main(words))
"""


@dataclass
class Pools:
    protocol: str
    port: int
    prefill: tuple[str, ...]
    decode: tuple[str, ...]

    def spec(self, **more):
        labels = dict.fromkeys(PORTS, str(self.port))
        legs = {"prefill": self.prefill, "decode": self.decode, "protocol": self.protocol}
        return Target("legs", self.decode[0], "llama3-8b", labels=labels, **legs, **more)


def free_port():
    """One that no host of ours uses."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a server: gives its process id and what it writes to stdout and stderr."""
    folder, numbers = tmp_path_factory.mktemp("servers"), count()
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdout.readline() == "ready\n"

        def start(*words):
            said = folder / str(next(numbers))
            os.mkfifo(said)
            print(json.dumps([str(said), *words]), file=nursery.stdin, flush=True)
            said = said.open()
            return int(said.readline()), said

        yield start


@contextmanager
def server(start, host, port, leg, *options):
    words = ["h100", "--model", "llama3-8b", "--host", host, "--port", str(port), "--leg", leg, *LINK, *options]
    process, said = start(*words)
    with said:
        try:
            yield process, said
        finally:
            with suppress(ProcessLookupError):  # killed by the test
                os.kill(process, signal.SIGTERM)
            assert select.select([said], [], [], 10)[0], "the server goes on"
            assert said.read() == ""


@contextmanager
def serving(start, protocol, *options, each=2):
    port, roles = free_port(), [*["prefill"] * each, *["decode"] * each]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server(start, f"127.0.0.{number}", port, f"{protocol}:{role}", *options))
            for number, role in enumerate(roles, 1)
        ]
        urls = [json.loads(said.readline())["url"] for _, said in servers]
        yield Pools(protocol, port, tuple(urls[:each]), tuple(urls[each:])), [process for process, _ in servers]


@pytest.fixture(scope="module", params=PROTOCOLS)
def pools(start, request):
    with serving(start, request.param) as (made, _):
        yield made


asks = partial(exchanging.asks, words=300)


def test_the_simulated_servers_speak_every_protocol():
    assert list(SPOKEN) == list(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert SPOKEN[name].at_once == protocol.concurrent


@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_exchanges_over_two_pools(pools, kind):
    exchanges = run(pools.spec(endpoint_type=kind), asks(12))
    assert [(x.outcome, x.error) for x in exchanges if x.outcome is not Outcome.OK] == []
    for urls, workers in ((pools.prefill, "prefill_worker"), (pools.decode, "decode_worker")):
        took = Counter(getattr(x, workers) for x in exchanges)
        assert took == dict.fromkeys((url.removeprefix("http://") for url in urls), 6)
    link = build("h100", model="llama3-8b", settings={"link.bandwidth": "0.5", "link.overlap": "0"}).legs.link
    transfer = link.alone(300) * 1e9
    for x in exchanges:
        assert (x.usage_prompt, x.usage_output, sum(x.token_events), x.finish_reason) == (300, 8, 8, "length")
        assert x.sent == min(x.prefill_sent, x.decode_sent) and x.prefill_sent < x.prefill_done
        assert x.decode_sent < x.first_token <= x.last_token <= x.done
        legs = (x.prefill_done - x.prefill_sent, x.decode_sent - x.prefill_done, x.last_token - x.decode_sent)
        assert (x.prefill_sent - x.sent + sum(legs)) * 1e-9 == pytest.approx(x.e2e, abs=1e-9)
        assert (x.decode_sent < x.prefill_done) is PROTOCOLS[pools.protocol].concurrent
        # No token before the engine's link has carried the KV cache.
        assert x.first_token - max(x.prefill_sent, x.decode_sent) > transfer


def test_another_exchanges_hand_over_is_refused(pools, monkeypatch):
    protocol = PROTOCOLS[pools.protocol]

    def decode(body, pair, told):
        told = json.loads(json.dumps(told).replace('"remote_request_id": "', '"remote_request_id": "x'))
        return protocol.decode(body, replace(pair, id=OTHER), told)

    if pools.protocol == "p2p-nccl":  # the id is part of the header alone

        def decode(body, pair, told):
            return body, [("X-Request-Id", protocol.decode(body, pair, told)[1][0][1].replace(pair.id, OTHER))]

    monkeypatch.setitem(PROTOCOLS, pools.protocol, replace(protocol, decode=decode))
    for x in run(pools.spec(), asks(2)):
        assert (x.outcome, x.status, x.first_token) == (Outcome.HTTP_ERROR, 400, None)
        assert "no KV cache for" in x.error or "no prefill leg for" in x.error
        assert x.prefill_done is not None


def test_another_pairs_hand_over_is_refused(pools, monkeypatch):
    """Decode is told of the other prefill server, or (LMCache) prefill of the other decode server."""
    protocol, (first, second) = PROTOCOLS[pools.protocol], pools.prefill
    swapped = {first: second, second: first, **dict(zip(pools.decode, reversed(pools.decode), strict=True))}

    def decode(body, pair, told):
        here, there = (url.removeprefix("http://") for url in (pair.prefill, swapped[pair.prefill]))
        said = json.dumps(told).replace(f'"{here.split(":")[0]}"', f'"{there.split(":")[0]}"')
        leg = protocol.decode(body, replace(pair, prefill=swapped[pair.prefill]), json.loads(said))
        if pools.protocol == "trtllm":
            params = leg[0]["disaggregated_params"]
            params["first_gen_tokens"] = [token + 1 for token in params["first_gen_tokens"]]
        return leg

    def prefill(body, pair):
        return protocol.prefill(body, replace(pair, decode=swapped[pair.decode]))

    changed = {"prefill": prefill} if pools.protocol == "lmcache" else {"decode": decode}
    monkeypatch.setitem(PROTOCOLS, pools.protocol, replace(protocol, **changed))
    for x in run(pools.spec(), asks(2)):
        assert (x.outcome, x.status, x.first_token) == (Outcome.HTTP_ERROR, 400, None), x.error
        assert x.prefill_done is not None


@pytest.mark.parametrize("pools", ["p2p-nccl", "lmcache"], indirect=True)  # where decode needn't read prefill's answer
def test_decode_before_prefill_is_refused(pools, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, pools.protocol, replace(PROTOCOLS[pools.protocol], concurrent=True))
    for x in run(pools.spec(), asks(2, words=2000)):
        assert (x.outcome, x.status) == (Outcome.HTTP_ERROR, 400)
        assert "its prefill leg must have ended first" in x.error


def test_a_prompt_that_was_not_prefilled_is_refused(pools, monkeypatch):
    protocol = PROTOCOLS[pools.protocol]

    def decode(body, pair, told):
        body, headers = protocol.decode(body, pair, told)
        return {**body, "messages": [{"role": "user", "content": "something else"}]}, headers

    monkeypatch.setitem(PROTOCOLS, pools.protocol, replace(protocol, decode=decode))
    for x in run(pools.spec(), asks(2)):
        assert (x.outcome, x.status) == (Outcome.HTTP_ERROR, 400) and "another prompt" in x.error


def test_a_prompt_to_one_leg_alone(pools):
    """Where the protocol has no local prefill the server says so, and doesn't hang."""
    (x,) = run(pools.spec(local_prefill_below=1000), asks(1))
    if pools.protocol in ("sglang", "p2p-nccl"):
        assert (x.outcome, x.status) == (Outcome.HTTP_ERROR, 400)
    else:
        assert x.outcome is Outcome.OK and x.prefill_sent is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_prefill_server_that_dies_is_an_outcome(start, protocol):
    with serving(start, protocol, "--set", "mfu=0.001", each=1) as (pools, processes):  # a prompt takes seconds

        def die(_):
            gevent.sleep(0.5)
            os.kill(processes[0], signal.SIGKILL)

        began = time.monotonic()
        (x,) = run(pools.spec(), asks(1, words=3000), die)
        assert time.monotonic() - began < 5
    assert x.outcome is not Outcome.OK and x.first_token is None and x.done is not None
    assert "prefill: " in x.error and x.prefill_done is None
