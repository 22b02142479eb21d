"""What goes wrong on real servers, each as its own outcome: refusals, errors in a stream, cuts, keys, models."""

import os
import signal
import sys
import threading

import pytest

from targets.exchange import Outcome
from targets.target import Target
from targets.wire import WIRES
from tests.exchanges import make_call

from .servers import dynamo, llama

SLOW = ("--speedup-ratio", "0.1")  # ten times slower: a token every 60 ms


def ask(index=0, words=20, tokens=16, **more):
    return make_call(index, 0, " ".join(f"word{index}-{k}" for k in range(words)), words, tokens, **more)


@pytest.fixture(scope="module")
def slow(namespace, tmp_path_factory):
    env = {"DYN_HTTP_SSE_KEEP_ALIVE_INTERVAL_MS": "30"}
    with dynamo(namespace, tmp_path_factory.mktemp("kv"), "agg", port=18200, env=env, options=SLOW) as url:
        yield Target("slow", url, "tiny", "dynamo")


RAW = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {"content-type": "application/json"})
sys.stdout.buffer.write(urllib.request.urlopen(asked).read())
"""


def test_comments_carry_no_tokens(namespace, slow):
    path, _, body = WIRES["dynamo"].request(ask(tokens=8), slow)
    assert b"\n:" in namespace.run(sys.executable, "-c", RAW, slow.url + path, stdin=body)  # it does send them
    (exchange,) = namespace.drive((slow, [ask(tokens=8)], 1))
    assert exchange.outcome is Outcome.OK
    assert sum(exchange.token_events) == exchange.usage_output == 8


def test_a_user_who_leaves(namespace, slow):
    exchanges = namespace.drive((slow, [ask(i, leave_after=3) for i in range(4)], 4))
    assert {x.outcome for x in exchanges} == {Outcome.CANCELLED}
    assert {sum(x.token_events) for x in exchanges} == {3}


def test_a_server_at_its_limit(namespace, tmp_path):
    env = {"DYN_ENGINE_REQUEST_LIMIT": "4"}
    with dynamo(namespace, tmp_path, "agg", port=18300, env=env, options=SLOW) as url:
        exchanges = namespace.drive((Target("busy", url, "tiny", "dynamo"), [ask(i, tokens=4) for i in range(32)], 32))
    refused = [x for x in exchanges if x.outcome is Outcome.RATE_LIMITED]
    assert {x.outcome for x in exchanges} == {Outcome.OK, Outcome.RATE_LIMITED}
    assert {x.status for x in refused} == {529} and all(x.error for x in refused)


def test_a_prompt_too_long(namespace, aggregated, llamacpp):
    """Dynamo answers 200 and reports the error in the stream, llama.cpp answers 400."""
    (dynamos,) = namespace.drive((Target("dynamo", aggregated, "tiny", "dynamo"), [ask(words=3000)], 1))
    (llamas,) = namespace.drive((Target("llama", llamacpp, "tiny"), [ask(words=3000)], 1))
    assert (dynamos.outcome, llamas.outcome) == (Outcome.HTTP_ERROR, Outcome.HTTP_ERROR)
    assert llamas.status == 400 and "context" in llamas.error
    assert dynamos.error


def test_a_model_that_is_not_there(namespace, aggregated):
    (exchange,) = namespace.drive((Target("dynamo", aggregated, "nope", "dynamo"), [ask()], 1))
    assert (exchange.outcome, exchange.status) == (Outcome.HTTP_ERROR, 404)
    assert "not found" in exchange.error.lower()


def test_nobody_listens(namespace):
    (exchange,) = namespace.drive((Target("none", "http://127.0.0.1:9", "tiny"), [ask()], 1))
    assert exchange.outcome is Outcome.REFUSED


def test_an_expired_key(namespace, monkeypatch):
    monkeypatch.setenv("OLD_KEY", "expired-key-91")
    with llama(namespace, "current-key", port=18081) as (url, _):
        (exchange,) = namespace.drive((Target("llama", url, "tiny", api_key_env="OLD_KEY"), [ask()], 1))
        monkeypatch.setenv("OLD_KEY", "current-key")
        (admitted,) = namespace.drive((Target("llama", url, "tiny", api_key_env="OLD_KEY"), [ask()], 1))
    assert (exchange.outcome, exchange.status) == (Outcome.HTTP_ERROR, 401)
    assert "expired-key-91" not in exchange.error
    assert admitted.outcome is Outcome.OK


def test_a_server_that_dies_in_mid_stream(namespace):
    with llama(namespace, port=18082) as (url, pid):
        dying = threading.Timer(3, os.kill, (pid, signal.SIGKILL))
        dying.start()
        exchanges = namespace.drive((Target("llama", url, "tiny"), [ask(i, tokens=900) for i in range(96)], 96))
        dying.join()
    assert len(exchanges) == 96
    assert Outcome.TRUNCATED in {x.outcome for x in exchanges}
    assert {x.outcome for x in exchanges} <= {Outcome.OK, Outcome.TRUNCATED, Outcome.REFUSED}
