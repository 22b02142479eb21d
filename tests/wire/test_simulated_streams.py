"""256 streams at a time from our simulated endpoints, in the three shapes: every token accounted for."""

import json
import subprocess
import sys

import gevent
import pytest
from gevent.event import Event

from targets import connect
from targets.clock import Clock
from targets.exchange import Outcome
from targets.target import Target
from tests.exchanges import make_call

STREAMS, TOKENS, WORDS = 256, 64, 40
ENDPOINTS = [
    ("h100", "chat", ()),
    ("h100-disagg", "dynamo", ()),
    ("groqrack-published", "groq", ("--pool", "8")),
]


@pytest.mark.parametrize(("name", "kind", "options"), ENDPOINTS, ids=[name for name, _, _ in ENDPOINTS])
def test_256_streams(name, kind, options):
    command = [sys.executable, "-m", "targets.simulated", name, "--model", "llama3-8b", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        exchanges = streams(Target(name, url, "llama3-8b", kind))
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert {(x.outcome, x.error) for x in exchanges} == {(Outcome.OK, "")}
    assert {(x.usage_prompt, x.usage_output, sum(x.token_events)) for x in exchanges} == {(WORDS, TOKENS, TOKENS)}
    assert len({x.request_id for x in exchanges}) == STREAMS
    assert all(x.sent <= x.headers_at <= x.first_token <= x.last_token <= x.done for x in exchanges)
    if kind != "chat":
        assert all(x.server_queue is not None and x.server_prefill > 0 and x.server_decode > 0 for x in exchanges)
        assert all(x.server_prefill <= x.ttft for x in exchanges)


def streams(spec):
    target, over, everything = connect(spec, Clock()), [], Event()

    def done(exchange):
        over.append(exchange)
        if len(over) == STREAMS:
            everything.set()

    for i in range(STREAMS):
        target.start(make_call(i, 0, " ".join(f"w{i}x{k}" for k in range(WORDS)), WORDS, TOKENS), done)
        gevent.sleep(0)
    everything.wait(60)
    target.close()
    assert len(over) == STREAMS
    return over
