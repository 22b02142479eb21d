"""The two legs of a disaggregated exchange: a one-leg request's body in, each leg's body and headers out. Pure.

The client plays the proxy: it sends the prompt to a prefill server, which computes its KV cache and one token, then (or
at once, where the protocol rendezvouses by itself) to a decode server, which fetches the cache and streams the answer.
A leg is (body, headers); `body` is the chat or completions body that a one-leg exchange would have sent. What ties the
legs together in each protocol: docs/protocols.md, "Two legs".

Sources (2026): vllm tests/v1/kv_connector/nixl_integration/toy_proxy_server.py,
examples/online_serving/disaggregated_serving_p2p_nccl_xpyd/disagg_proxy_p2p_nccl_xpyd.py and
examples/online_serving/disaggregated_serving/mooncake_connector/mooncake_connector_proxy.py; LMCache
examples/disagg_prefill/disagg_proxy_server.py; sglang sgl-router/py_src/sglang_router/mini_lb.py; TensorRT-LLM
tensorrt_llm/serve/openai_disagg_service.py.

LMCache's proxy streams prefill's first token, learns by ZMQ when the KV cache has arrived, and has decode go on from
there. Here decode writes the whole answer, as with `disagg_proxy_server_first_token_from_decoder.py`, and its request
goes out when prefill has answered: a real decode server that lacks the KV cache then computes the prompt again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..exchange import Outcome
from . import lenient
from .interface import Json, WireError

Leg = tuple[Json, list[tuple[str, str]]]
PORT_LABELS = {  # and the servers' defaults
    "bootstrap_port": 8998, "prefill_zmq_port": 21001, "decode_zmq_port": 22001,
    "receiver_init_port": 7300, "receiver_alloc_port": 7400,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Which servers, and the name of this exchange. `options`: ports and addresses that don't follow from the URLs, the
    target's labels of these names."""

    prefill: str
    decode: str
    id: str  # unique, 32 hex digits
    engine: str = ""  # name of prefill's engine, where the protocol asks for it (Mooncake)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def bootstrap(self) -> tuple[str, int]:
        """Host and port of prefill's bootstrap server."""
        return self.option("bootstrap_host", self.host("prefill")), self.port("bootstrap_port")

    def host(self, side: str) -> str:
        host = urlsplit(self.prefill if side == "prefill" else self.decode).hostname or ""
        return f"[{host}]" if ":" in host else host  # a port follows wherever it is used

    def option(self, name: str, otherwise: str = "") -> str:
        return self.options.get(name) or otherwise

    def port(self, name: str) -> int:
        return int(self.option(name) or PORT_LABELS[name])

    @property
    def number(self) -> int:
        """63 bits of the id; TensorRT-LLM takes numbers under 2^40 for its own."""
        return int(self.id, 16) & (2**63 - 1) | 1 << 62


@dataclass(frozen=True)
class Protocol:
    """`decode` gets the prefill's answer (None where both legs go out at once) and gives None where none is needed."""

    prefill: Callable[[Json, Pair], Leg]
    decode: Callable[[Json, Pair, Json | None], Leg | None]
    concurrent: bool = False


def unstreamed(body: Json) -> Json:
    return {**{key: value for key, value in body.items() if key != "stream_options"}, "stream": False}


def one_token(body: Json) -> Json:
    """The body for a vLLM that only prefills. `ignore_eos` stays: only what ends by length is handed over."""
    dropped = ("min_tokens", "min_completion_tokens", "max_completion_tokens")
    return {**{key: value for key, value in unstreamed(body).items() if key not in dropped}, "max_tokens": 1}


def _same_id(pair: Pair) -> list[tuple[str, str]]:
    return [("X-Request-Id", pair.id)]


def _nixl_prefill(body: Json, pair: Pair) -> Leg:
    roles = {"do_remote_decode": True, "do_remote_prefill": False}
    unknown = dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
    return {**one_token(body), "kv_transfer_params": {**roles, **unknown}}, _same_id(pair)


def _nixl_decode(body: Json, pair: Pair, answer: Json | None) -> Leg:
    params = (answer or {}).get("kv_transfer_params")
    if not isinstance(params, dict):
        raise WireError("prefill answered without kv_transfer_params: is a KV connector configured?", Outcome.MALFORMED)
    return {**body, "kv_transfer_params": params}, _same_id(pair)


def _nccl_id(pair: Pair) -> list[tuple[str, str]]:
    """The P2P NCCL connector reads both sides' ZMQ addresses out of the request id."""
    prefill = pair.option("prefill_zmq", f"{pair.host('prefill')}:{pair.port('prefill_zmq_port')}")
    decode = pair.option("decode_zmq", f"{pair.host('decode')}:{pair.port('decode_zmq_port')}")
    return [("X-Request-Id", f"___prefill_addr_{prefill}___decode_addr_{decode}_{pair.id}")]


def _mooncake_prefill(body: Json, pair: Pair) -> Leg:
    params = {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": f"xfer-{pair.id}"}
    # The engine in decode's body is the one of rank 0.
    return {**one_token(body), "kv_transfer_params": params}, [*_same_id(pair), ("X-data-parallel-rank", "0")]


def _mooncake_decode(body: Json, pair: Pair, answer: Json | None) -> Leg:
    host, port = pair.bootstrap
    params = {"do_remote_decode": False, "do_remote_prefill": True, "transfer_id": f"xfer-{pair.id}"}
    now = {"remote_bootstrap_addr": f"http://{host}:{port}", "remote_engine_id": pair.engine}
    before = {"bootstrap_server_host": host, "bootstrap_server_port": port}  # vLLM up to 0.12
    return {**body, "kv_transfer_params": {**params, **now, **before}}, _same_id(pair)


def _lmcache_prefill(body: Json, pair: Pair) -> Leg:
    receiver = {
        "req_id": pair.id,
        "receiver_host": pair.option("receiver_host", pair.host("decode")),
        "receiver_init_port": [pair.port("receiver_init_port")],
        "receiver_alloc_port": [pair.port("receiver_alloc_port")],
    }
    return {**one_token(body), "kv_transfer_params": {"ret_first_tok": True, "disagg_spec": receiver}}, _same_id(pair)


def _sglang(body: Json, pair: Pair) -> Leg:
    host, port = pair.bootstrap
    return {**body, "bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": pair.number}, []


def _trtllm_prefill(body: Json, pair: Pair) -> Leg:
    """All as it was, as the server's own proxy sends it: a context server stops after one token by itself."""
    return {**unstreamed(body), "disaggregated_params": _trtllm_params(pair, "context_only")}, []


def _trtllm_params(pair: Pair, kind: str) -> Json:
    return {"request_type": kind, "disagg_request_id": pair.number}


def _trtllm_decode(body: Json, pair: Pair, answer: Json | None) -> Leg | None:
    choice = next(iter(lenient.mappings((answer or {}).get("choices"))), {})
    if choice.get("finish_reason") not in (None, "length", "not_finished"):
        return None  # the context server has finished the request: there is nothing left to decode
    params = choice.get("disaggregated_params")
    if not isinstance(params, dict):
        raise WireError("the context server answered without disaggregated_params", Outcome.MALFORMED)
    ids = (answer or {}).get("prompt_token_ids")
    prompt = {"prompt" if "prompt" in body else "prompt_token_ids": ids} if ids else {}
    return {**body, **prompt, "disaggregated_params": {**params, **_trtllm_params(pair, "generation_only")}}, []


PROTOCOLS = {
    "nixl": Protocol(_nixl_prefill, _nixl_decode),
    "p2p-nccl": Protocol(
        lambda body, pair: (one_token(body), _nccl_id(pair)), lambda body, pair, _: (body, _nccl_id(pair))
    ),
    "mooncake": Protocol(_mooncake_prefill, _mooncake_decode, concurrent=True),
    "lmcache": Protocol(_lmcache_prefill, lambda body, pair, _: (body, _same_id(pair))),
    "sglang": Protocol(_sglang, lambda body, pair, _: _sglang(body, pair), concurrent=True),
    "trtllm": Protocol(_trtllm_prefill, _trtllm_decode),
}
