"""What the two legs of a disaggregated exchange say: bodies and headers in, bodies and headers out. Pure.

The client plays the proxy: it sends the prompt to a prefill server, which computes its KV cache and one token, then (or
at once, where the protocol rendezvouses by itself) to a decode server, which fetches the cache and streams the answer.
A leg is (body, headers); `body` is the chat or completions body that a one-leg exchange would have sent.

    name        order       what ties the legs together                                        source (2026)
    nixl        sequential  prefill's kv_transfer_params, verbatim, in decode's body            vllm disagg proxy
    p2p-nccl    sequential  X-Request-Id with both sides' ZMQ addresses                         vllm p2p_nccl proxy
    mooncake    concurrent  a transfer id; decode pulls from prefill's bootstrap server         vllm mooncake proxy
    lmcache     sequential  the receiver's ports in prefill's kv_transfer_params                lmcache disagg proxy
    sglang      concurrent  the same bootstrap host, port and room in both bodies               sglang mini_lb
    trtllm      sequential  prefill's disaggregated_params, as generation_only, in decode's     trtllm-serve
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .exchange import Outcome
from .wire import WireError, facts

Body = dict[str, Any]
Leg = tuple[Body, list[tuple[str, str]]]
BOOTSTRAP_PORT = 8998  # SGLang's and Mooncake's default


@dataclass(frozen=True)
class Pair:
    """Which servers, and the name of this exchange.

    id       unique, 32 hex digits
    engine   name of prefill's engine, where the protocol asks for it (Mooncake)
    options  ports and addresses that can't be told from the URLs: the target's labels of these names
    """

    prefill: str
    decode: str
    id: str
    engine: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def bootstrap(self) -> tuple[str, int]:
        """Host and port of prefill's bootstrap server."""
        return self.option("bootstrap_host", self.host("prefill")), self.port("bootstrap_port", BOOTSTRAP_PORT)

    def host(self, side: str) -> str:
        return urlsplit(self.prefill if side == "prefill" else self.decode).hostname or ""

    def option(self, name: str, otherwise: str = "") -> str:
        return self.options.get(name) or otherwise

    def port(self, name: str, otherwise: int) -> int:
        given = self.option(name, str(otherwise))
        return int(given) if given.isdecimal() else otherwise


@dataclass(frozen=True)
class Protocol:
    """`decode` gets the prefill's answer (None where both legs go out at once) and gives None where none is needed."""

    prefill: Callable[[Body, Pair], Leg]
    decode: Callable[[Body, Pair, Body | None], Leg | None]
    concurrent: bool = False


def one_token(body: Body) -> Body:
    """The body for a leg that only prefills: one token, no stream."""
    dropped = ("stream_options", "min_tokens", "ignore_eos", "max_completion_tokens")
    short = {key: value for key, value in body.items() if key not in dropped}
    return {**short, "max_tokens": 1, "stream": False}


def _same_id(pair: Pair) -> list[tuple[str, str]]:
    return [("X-Request-Id", pair.id)]


def _nixl_prefill(body: Body, pair: Pair) -> Leg:
    wanted = {"do_remote_decode": True, "do_remote_prefill": False}
    unknown = dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
    return {**one_token(body), "kv_transfer_params": {**wanted, **unknown}}, _same_id(pair)


def _nixl_decode(body: Body, pair: Pair, answer: Body | None) -> Leg:
    params = (answer or {}).get("kv_transfer_params")
    if not isinstance(params, dict):
        raise WireError("prefill answered without kv_transfer_params: is a KV connector configured?", Outcome.MALFORMED)
    return {**body, "kv_transfer_params": params}, _same_id(pair)


def _nccl_id(pair: Pair) -> list[tuple[str, str]]:
    """The P2P NCCL connector reads both sides' ZMQ addresses out of the request id."""
    prefill = pair.option("prefill_zmq", f"{pair.host('prefill')}:{pair.port('prefill_zmq_port', 21001)}")
    decode = pair.option("decode_zmq", f"{pair.host('decode')}:{pair.port('decode_zmq_port', 22001)}")
    return [("X-Request-Id", f"___prefill_addr_{prefill}___decode_addr_{decode}_{pair.id}")]


def _nccl_prefill(body: Body, pair: Pair) -> Leg:
    return one_token(body), _nccl_id(pair)


def _nccl_decode(body: Body, pair: Pair, answer: Body | None) -> Leg:
    return body, _nccl_id(pair)


def _mooncake_prefill(body: Body, pair: Pair) -> Leg:
    params = {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": f"xfer-{pair.id}"}
    return {**one_token(body), "kv_transfer_params": params}, _same_id(pair)


def _mooncake_decode(body: Body, pair: Pair, answer: Body | None) -> Leg:
    host, port = pair.bootstrap
    params = {"do_remote_decode": False, "do_remote_prefill": True, "transfer_id": f"xfer-{pair.id}"}
    now = {"remote_bootstrap_addr": f"http://{host}:{port}", "remote_engine_id": pair.engine}
    before = {"bootstrap_server_host": host, "bootstrap_server_port": port}  # vLLM up to 0.12
    return {**body, "kv_transfer_params": {**params, **now, **before}}, _same_id(pair)


def _lmcache_prefill(body: Body, pair: Pair) -> Leg:
    receiver = {
        "req_id": pair.id,
        "receiver_host": pair.option("receiver_host", pair.host("decode")),
        "receiver_init_port": [pair.port("receiver_init_port", 7300)],
        "receiver_alloc_port": [pair.port("receiver_alloc_port", 7400)],
    }
    return {**one_token(body), "kv_transfer_params": {"ret_first_tok": True, "disagg_spec": receiver}}, _same_id(pair)


def _lmcache_decode(body: Body, pair: Pair, answer: Body | None) -> Leg:
    return body, _same_id(pair)


def _sglang(body: Body, pair: Pair) -> Leg:
    room = int(pair.id, 16) & (2**63 - 1)
    host, port = pair.bootstrap
    return {**body, "bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": room}, []


def _sglang_decode(body: Body, pair: Pair, answer: Body | None) -> Leg:
    return _sglang(body, pair)


def _trtllm_prefill(body: Body, pair: Pair) -> Leg:
    params = {"request_type": "context_only", "disagg_request_id": int(pair.id, 16) & (2**63 - 1)}
    return {**one_token(body), "disaggregated_params": params}, []


def _trtllm_decode(body: Body, pair: Pair, answer: Body | None) -> Leg | None:
    choice = facts.first((answer or {}).get("choices"))
    if choice.get("finish_reason") not in (None, "length", "not_finished"):
        return None  # the context server has finished the request: there is nothing left to decode
    params = choice.get("disaggregated_params")
    if not isinstance(params, dict):
        raise WireError("the context server answered without disaggregated_params", Outcome.MALFORMED)
    return {**body, "disaggregated_params": {**params, "request_type": "generation_only"}}, []


PROTOCOLS = {
    "nixl": Protocol(_nixl_prefill, _nixl_decode),
    "p2p-nccl": Protocol(_nccl_prefill, _nccl_decode),
    "mooncake": Protocol(_mooncake_prefill, _mooncake_decode, concurrent=True),
    "lmcache": Protocol(_lmcache_prefill, _lmcache_decode),
    "sglang": Protocol(_sglang, _sglang_decode, concurrent=True),
    "trtllm": Protocol(_trtllm_prefill, _trtllm_decode),
}
