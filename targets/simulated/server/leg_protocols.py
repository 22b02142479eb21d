"""The two legs of a disaggregated exchange as a server sees them, protocol by protocol, checked strictly. Pure.

A prefill leg has a key under which its KV cache waits; a decode leg names that key, and the server to take it from
(LMCache's decode server is sent it instead). What a real server would wait for in vain, crash on or silently compute
again is refused here in one line, so that a client's mistake is seen. Sources: see `targets.wire.protocols`.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from traces.errors import InputError

from ..engine.kv_memory import blocks_for
from .api import ApiError, Json, RequestBody, mapping

ADDRESSES = re.compile(r"___prefill_addr_(.+?:\d+)___decode_addr_(.+:\d+)_")


@dataclass(frozen=True, slots=True)
class LegRequest:
    """A request as legs are told by: its body, X-Request-Id, the address it was sent to, the answer's id, the engine's
    name."""

    body: RequestBody
    id: str
    address: str
    answer_id: str
    engine: str

    def params(self, name: str = "kv_transfer_params") -> Json:
        return mapping(self.body.fields.get(name))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Prefill:
    key: str
    handed: Json = field(default_factory=dict)  # what decode must bring along
    answer: Json = field(default_factory=dict)  # what its answer has beside the usual
    choice: Json = field(default_factory=dict)  # and the answer's choice
    receiver: str = ""  # URL of the server that it is sent to (LMCache)


@dataclass(frozen=True, slots=True)
class Decode:
    key: str
    source: str = ""  # URL of the server that has it; none: it was sent here (LMCache)
    claim: Json = field(default_factory=dict)  # what prefill handed out, as the decode leg repeats it


Leg = Prefill | Decode


def refused(message: str, status: int = 400) -> ApiError:
    return ApiError(status, message, "kv_transfer_error", status)


def tokens(words: tuple[Any, ...]) -> list[int]:
    """Token ids of a prompt: words have one each, the same on every server."""
    return [word if isinstance(word, int) else zlib.crc32(word.encode()) for word in words]


def _needed(fields: Json, *names: str) -> list[str]:
    for name in names:
        if fields.get(name) in (None, ""):
            raise refused(f"{name} is missing")
    return [str(fields[name]) for name in names]


def _nixl(request: LegRequest, role: str) -> Leg | None:
    params = request.params()
    if params.get("do_remote_decode") is True:
        host, _, port = request.address.rpartition(":")
        handed = {
            "do_remote_prefill": True, "do_remote_decode": False,
            "remote_block_ids": list(range(blocks_for(request.body.prompt_tokens + 1))),
            "remote_engine_id": request.engine, "remote_request_id": request.answer_id, "remote_host": host,
            "remote_port": int(port), "tp_size": 1,
        }  # fmt: skip
        return Prefill(request.answer_id, handed, {"kv_transfer_params": handed})
    if params.get("do_remote_prefill") is True:
        host, port, key = _needed(params, "remote_host", "remote_port", "remote_request_id")
        return Decode(key, f"http://{host}:{port}", params)
    return None


def _p2p_nccl(request: LegRequest, role: str) -> Leg:
    addresses = ADDRESSES.search(request.id)
    if not addresses:
        raise refused(f"Request id {request.id} does not contain hostname and port")
    named = addresses[1] if role == "prefill" else addresses[2]
    if named != request.address:
        raise refused(f"X-Request-Id names {role} at {named}, and this is {request.address}")
    return Prefill(request.id) if role == "prefill" else Decode(request.id, f"http://{addresses[1]}")


def _mooncake(request: LegRequest, role: str) -> Leg | None:
    params = request.params()
    if params.get("do_remote_decode") is True:
        return Prefill(_needed(params, "transfer_id")[0], {"remote_engine_id": request.engine})
    if params.get("do_remote_prefill") is True:
        key, source, engine = _needed(params, "transfer_id", "remote_bootstrap_addr", "remote_engine_id")
        return Decode(key, source, {"remote_engine_id": engine})
    return None


def _lmcache(request: LegRequest, role: str) -> Leg | None:
    if role == "decode":  # its request is like any other, but for the name that both legs have
        return Decode(request.id) if request.id else None
    params = request.params()
    spec = mapping(params.get("disagg_spec"))
    if not spec:
        return None
    key, host = _needed(spec, "req_id", "receiver_host")
    ports = mapping(spec.get("receiver_init_port"), list)
    if not ports or len(ports) != len(mapping(spec.get("receiver_alloc_port"), list)):
        raise refused("disagg_spec: receiver_init_port and receiver_alloc_port are lists, a port for each rank")
    token = {"first_tok": tokens(request.body.words[:1])[0]}
    answer = {"kv_transfer_params": token} if "ret_first_tok" in params else {}
    return Prefill(key, answer=answer, receiver=f"http://{host}:{ports[0]}")


def _sglang(request: LegRequest, role: str) -> Leg:
    fields = request.body.fields
    if fields.get("bootstrap_room") is None:
        raise refused("Disaggregated request received without bootstrap room id")
    host, port, room = _needed(fields, "bootstrap_host", "bootstrap_port", "bootstrap_room")
    return Prefill(room) if role == "prefill" else Decode(room, f"http://{host}:{port}")


def _trtllm(request: LegRequest, role: str) -> Leg | None:
    params = request.params("disaggregated_params")
    if params.get("request_type") == "context_only":
        key = _needed(params, "disagg_request_id")[0]
        if not key.isdecimal():
            raise refused(f"disagg_request_id={key:.40} is no number")
        number, state = int(key), base64.b64encode(f"http://{request.address}".encode()).decode()
        names = {"ctx_request_id": number, "disagg_request_id": number, "ctx_dp_rank": 0}
        handed = {"first_gen_tokens": [number % 32_000], **names, "encoded_opaque_state": state}
        choice = {"disaggregated_params": {"request_type": "context_only", **handed}}
        return Prefill(key, handed, {"prompt_token_ids": tokens(request.body.words)}, choice)
    if params.get("request_type") == "generation_only":
        key, state = _needed(params, "disagg_request_id", "encoded_opaque_state")
        try:
            source = base64.b64decode(state, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise refused("encoded_opaque_state isn't a context server's") from None
        return Decode(key, source, params)
    return None


@dataclass(frozen=True, slots=True)
class LegProtocol:
    leg: Callable[[LegRequest, str], Leg | None]  # of a request and the server's role; None: an exchange on its own
    at_once: bool = False  # decode may come first
    whole: bool = False  # prefill's answer is read, so it can't be a stream
    one: bool = True  # the prefill leg is for one token


PROTOCOLS = {
    "nixl": LegProtocol(_nixl, whole=True),
    "p2p-nccl": LegProtocol(_p2p_nccl),
    "mooncake": LegProtocol(_mooncake, at_once=True),
    "lmcache": LegProtocol(_lmcache, whole=True),
    "sglang": LegProtocol(_sglang, at_once=True, one=False),
    "trtllm": LegProtocol(_trtllm, whole=True, one=False),
}
ROLES = ("prefill", "decode")


def parse_role(text: str) -> tuple[str, str]:
    """Protocol and role of `--leg`; NIXL's servers may be both. InputError for anything else."""
    name, _, role = text.partition(":")
    if name not in PROTOCOLS or role not in (*ROLES, *([""] if name == "nixl" else [])):
        raise InputError(f"--leg {text}", remedy=f"one of {', '.join(PROTOCOLS)}, and :prefill or :decode")
    return name, role


def leg_of(protocol: LegProtocol, role: str, request: LegRequest) -> Leg | None:
    """The leg of a request, None for an exchange on its own. Raises ApiError."""
    leg = protocol.leg(request, role)
    if leg is None:
        return None
    leg_role = ROLES[isinstance(leg, Decode)]
    if role not in ("", leg_role):
        raise refused(f"a {leg_role} leg, and this is a {role} server")
    if isinstance(leg, Prefill):
        _check_prefill(protocol, request.body)
    return leg


def _check_prefill(protocol: LegProtocol, body: RequestBody) -> None:
    """In vLLM's words, where it has some."""
    if protocol.whole and body.stream:
        raise refused("the answer to a prefill leg isn't streamed")
    if body.fields.get("stream_options") and not body.stream:
        raise refused("Stream options can only be defined when `stream=True`.")
    if protocol.one and body.output_tokens != 1:
        raise refused(f"a prefill leg is for one token, not {body.output_tokens}")
    if (body.fields.get("min_tokens") or 0) > body.output_tokens:
        raise refused(f"min_tokens must be less than or equal to max_tokens={body.output_tokens}")
