"""vLLM on CPU: real compute, multi-token chunks under load, and two legs with a real KV transfer (`make test-real`)."""

import os
import re
import statistics
import sys
from contextlib import ExitStack

import pytest

from targets.exchange import Outcome
from targets.target import Target
from tests.exchanges import make_call

from .servers import Unavailable, install_vllm, vllm

pytestmark = pytest.mark.real
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
NIXL = '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_buffer_device":"cpu"}'


def asks(count, tokens=64, words=100):
    return [make_call(i, 0, " ".join(f"word{i}-{k}" for k in range(words)), words, tokens) for i in range(count)]


def total(namespace, url, name):
    text = namespace.run(sys.executable, "-c", GET, f"{url}/metrics").decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def model(namespace):
    try:
        return install_vllm()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"no vLLM: {reason}")
        pytest.skip(f"no vLLM: {reason}")


def test_256_streams_with_every_token_counted(namespace, model):
    with vllm(namespace, model, port=18400) as url:
        exchanges = namespace.drive((Target("vllm", url, "tiny"), asks(256), 256), timeout=300)
        (ids,) = namespace.drive((Target("vllm", url, "tiny", "completions"), [make_call(0, 0, [5] * 40, 40, 9)], 1))
        (absent,) = namespace.drive((Target("vllm", url, "nope"), asks(1), 1))
        (long,) = namespace.drive((Target("vllm", url, "tiny"), asks(1, words=3000), 1))
        generated = total(namespace, url, "vllm:generation_tokens_total")
    assert {(x.outcome, x.error) for x in exchanges} == {(Outcome.OK, "")}
    assert {x.usage_output for x in exchanges} == {64} and generated == 256 * 64 + 9
    events = sum(sum(x.token_events) for x in exchanges)
    assert events < 256 * 64  # under load chunks carry several tokens, and usage is what counts
    assert all(x.tpot is not None and x.output_count == 64 for x in exchanges)
    assert (ids.usage_prompt, ids.usage_output) == (40, 9)
    assert (absent.outcome, absent.status) == (Outcome.HTTP_ERROR, 404)
    assert (long.outcome, long.status) == (Outcome.HTTP_ERROR, 400)


def test_two_legs_with_a_real_transfer(namespace, model):
    with ExitStack() as stack:
        cores = sorted(os.sched_getaffinity(0))[:2]
        urls = [
            stack.enter_context(vllm(namespace, model, "--kv-transfer-config", NIXL, port=port, core=core))
            for port, core in zip((18500, 18700), cores, strict=True)
        ]
        legs = Target("legs", urls[1], "tiny", prefill=(urls[0],), decode=(urls[1],), protocol="nixl")
        exchanges = namespace.drive((legs, asks(32, tokens=32), 8), timeout=300)
        transfers = total(namespace, urls[1], "vllm:nixl_xfer_time_seconds_count")
        prefilled = total(namespace, urls[0], "vllm:generation_tokens_total")
        decoded = total(namespace, urls[1], "vllm:generation_tokens_total")
    assert {(x.outcome, x.error) for x in exchanges} == {(Outcome.OK, "")}
    assert {x.usage_output for x in exchanges} == {32}
    assert all(x.sent == x.prefill_sent < x.prefill_done <= x.decode_sent < x.first_token for x in exchanges)
    legs_ms = {
        "prefill": [x.prefill_done - x.prefill_sent for x in exchanges],
        "hand-over": [x.decode_sent - x.prefill_done for x in exchanges],
        "transfer and first step": [x.first_token - x.decode_sent for x in exchanges],
    }
    print({leg: round(statistics.median(times) * 1e-6, 2) for leg, times in legs_ms.items()}, "ms p50")
    assert transfers >= 32  # the KV cache really went from one to the other
    assert (prefilled, decoded) == (32, 32 * 32)
