"""What each protocol's legs say, as the servers' own proxies say it."""

import pytest

from targets.exchange import Outcome
from targets.wire import WireError
from targets.wire.protocols import PROTOCOLS, Pair

ID = "00112233445566778899aabbccddeeff"
ROOM = int(ID, 16) & (2**63 - 1) | 2**62
PAIR = Pair("http://10.0.0.1:8100", "http://10.0.0.2:8200", ID)
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 50,
    "min_tokens": 50,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}
SHORT = {"model": "m", "messages": BODY["messages"], "ignore_eos": True, "max_tokens": 1, "stream": False}
WHOLE = {key: value for key, value in BODY.items() if key != "stream_options"} | {"stream": False}
SAME = [("X-Request-Id", ID)]
NCCL = [("X-Request-Id", f"___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_{ID}")]
NIXL_ANSWER = {"do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [1, 2], "remote_host": "h"}
BOOTSTRAP = {"bootstrap_host": "10.0.0.1", "bootstrap_port": 8998, "bootstrap_room": ROOM}
NOTHING = dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
XFER = {"transfer_id": f"xfer-{ID}"}

PREFILL = {
    "nixl": ({**SHORT, "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, **NOTHING}}, SAME),
    "p2p-nccl": (SHORT, NCCL),
    "mooncake": (
        {**SHORT, "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, **XFER}},
        [*SAME, ("X-data-parallel-rank", "0")],
    ),
    "lmcache": (
        {
            **SHORT,
            "kv_transfer_params": {
                "ret_first_tok": True,
                "disagg_spec": {
                    "req_id": ID,
                    "receiver_host": "10.0.0.2",
                    "receiver_init_port": [7300],
                    "receiver_alloc_port": [7400],
                },
            },
        },
        SAME,
    ),
    "sglang": ({**BODY, **BOOTSTRAP}, []),
    "trtllm": ({**WHOLE, "disaggregated_params": {"request_type": "context_only", "disagg_request_id": ROOM}}, []),
}
TRTLLM = {"request_type": "context_only", "ctx_request_id": 7, "encoded_opaque_state": "x", "first_gen_tokens": [3]}
GENERATE = {**TRTLLM, "request_type": "generation_only", "disagg_request_id": ROOM}
ANSWERS = {
    "nixl": {"choices": [], "kv_transfer_params": NIXL_ANSWER},
    "trtllm": {"choices": [{"finish_reason": "length", "disaggregated_params": TRTLLM}], "prompt_token_ids": [5, 6]},
}
DECODE = {
    "nixl": ({**BODY, "kv_transfer_params": NIXL_ANSWER}, SAME),
    "p2p-nccl": (BODY, NCCL),
    "mooncake": (
        {
            **BODY,
            "kv_transfer_params": {
                "do_remote_decode": False,
                "do_remote_prefill": True,
                **XFER,
                "remote_bootstrap_addr": "http://10.0.0.1:8998",
                "remote_engine_id": "",
                "bootstrap_server_host": "10.0.0.1",
                "bootstrap_server_port": 8998,
            },
        },
        SAME,
    ),
    "lmcache": (BODY, SAME),
    "sglang": ({**BODY, **BOOTSTRAP}, []),
    "trtllm": ({**BODY, "prompt_token_ids": [5, 6], "disaggregated_params": GENERATE}, []),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_the_legs_say(name):
    protocol, before = PROTOCOLS[name], dict(BODY)
    assert protocol.prefill(BODY, PAIR) == PREFILL[name]
    assert protocol.decode(BODY, PAIR, None if protocol.concurrent else ANSWERS.get(name, {})) == DECODE[name]
    assert before == BODY  # the body is the exchange's own


@pytest.mark.parametrize(
    ("name", "answer"),
    [("nixl", {}), ("nixl", {"kv_transfer_params": None}), ("trtllm", {"choices": [{"finish_reason": "length"}]})],
)
def test_an_answer_that_hands_nothing_over(name, answer):
    with pytest.raises(WireError) as caught:
        PROTOCOLS[name].decode(BODY, PAIR, answer)
    assert caught.value.outcome is Outcome.MALFORMED


def test_context_may_finish_the_request():
    assert PROTOCOLS["trtllm"].decode(BODY, PAIR, {"choices": [{"finish_reason": "stop"}]}) is None


def test_a_text_prompt_gives_way_to_its_token_ids():
    text = {"model": "m", "prompt": "hi", "max_tokens": 5}
    assert PROTOCOLS["trtllm"].decode(text, PAIR, ANSWERS["trtllm"])[0]["prompt"] == [5, 6]


def test_an_address_of_ipv6_is_bracketed():
    pair = Pair("http://[fd00::1]:8100", "http://[fd00::2]:8200", ID)
    assert PROTOCOLS["sglang"].prefill(BODY, pair)[0]["bootstrap_host"] == "[fd00::1]"
    assert "_addr_[fd00::1]:21001___decode_addr_[fd00::2]:22001_" in PROTOCOLS["p2p-nccl"].prefill(BODY, pair)[1][0][1]


def test_labels_say_what_the_urls_do_not():
    labels = {"decode_zmq": "10.1.1.1:9", "prefill_zmq_port": "44", "bootstrap_port": "77", "bootstrap_host": "b"}
    pair = Pair(PAIR.prefill, PAIR.decode, ID, "engine-3", labels)
    assert PROTOCOLS["p2p-nccl"].prefill(BODY, pair)[1] == [
        ("X-Request-Id", f"___prefill_addr_10.0.0.1:44___decode_addr_10.1.1.1:9_{ID}")
    ]
    body, _ = PROTOCOLS["sglang"].prefill(BODY, pair)
    assert (body["bootstrap_host"], body["bootstrap_port"]) == ("b", 77)
    params = PROTOCOLS["mooncake"].decode(BODY, pair, None)[0]["kv_transfer_params"]
    assert (params["remote_bootstrap_addr"], params["remote_engine_id"]) == ("http://b:77", "engine-3")
