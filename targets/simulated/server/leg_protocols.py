"""The two legs of a disaggregated exchange as a server sees them, protocol by protocol, checked strictly; and how the
KV cache of a prompt comes from the server of one to the server of the other.

A prefill leg has a key under which its KV cache waits; a decode leg names that key, and the server to take it from
(LMCache's decode server is sent it instead). Sources: see `targets.wire.protocols`; what is refused: docs/simulated.md.

Theory of operation. A prefill leg puts its prompt on the shelf under the protocol's key, and computes it. The decode
server takes it from there before its engine begins the transfer; LMCache's prefill server sends it instead, and answers
once it is there. A KV cache is given once, and only for the prompt that it was computed for and with all that prefill
has handed out. Real servers meet over ZMQ, RDMA or a bootstrap server; these over HTTP on their own ports.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import aiohttp
import orjson

from traces.errors import InputError

from ..engine.kv_memory import blocks_for
from .api import ApiError, Json, RequestBody, mapping

ADDRESSES = re.compile(r"___prefill_addr_(.+?:\d+)___decode_addr_(.+:\d+)_")
RENDEZVOUS = 2.0  # seconds that a decode leg waits for its prefill leg where both are sent at once


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


def digest_of(words: tuple[Any, ...]) -> str:
    return blake2b(array("q", tokens(words)).tobytes(), digest_size=16).hexdigest()


@dataclass(slots=True, eq=False)
class Held:
    """A KV cache on the shelf, or the place where one is expected."""

    came: asyncio.Event = field(default_factory=asyncio.Event)  # the prefill leg
    over: asyncio.Event = field(default_factory=asyncio.Event)  # and it is done
    digest: str = ""  # of the prompt, once its KV cache is complete
    handed: Json = field(default_factory=dict)
    release: Callable[[], None] = lambda: None


class Shelf:
    """KV caches that wait to be taken, by key."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def put(self, key: str) -> None:
        """The prefill leg has come."""
        held = self._held.setdefault(key, Held())
        if held.came.is_set():
            raise refused(f"{key} names another exchange already")
        held.came.set()

    def give(self, key: str, digest: str, handed: Json, release: Callable[[], None]) -> None:
        """The prompt may be taken from now on; `release` is called when it is."""
        held = self._held[key]
        held.digest, held.handed, held.release = digest, handed, release
        held.over.set()

    def close(self, key: str) -> None:
        """The prefill leg is over; if it gave nothing, a waiting decode leg is refused."""
        held = self._held.get(key)
        if held and not held.digest:
            del self._held[key]
            held.over.set()

    async def take(self, key: str, digest: str, claim: Json, patient: bool = False) -> None:
        """ApiError unless there is one for that prompt and claim. `patient`: wait for the prefill leg."""
        held = self._held.setdefault(key, Held()) if patient else self._held.get(key)
        if held and patient:
            try:
                await asyncio.wait_for(held.came.wait(), RENDEZVOUS)
            except TimeoutError:
                self._held.pop(key, None)
                raise refused(f"no prefill leg for {key} within {RENDEZVOUS:g} s") from None
            await held.over.wait()
        if held is None or not held.over.is_set():
            raise refused(f"no KV cache for {key}: its prefill leg must have ended first")
        if not held.digest:
            raise refused(f"no KV cache for {key}: its prefill leg failed", 502)
        if held.digest != digest:
            raise refused(f"{key} is the KV cache of another prompt")
        for name, value in held.handed.items():
            if claim.get(name) != value:
                raise refused(f"{name} isn't what prefill handed out for {key}")
        if self._held.pop(key, None) is held:
            held.release()


class Handover:
    """One server's part in the protocol."""

    def __init__(self, leg: str) -> None:
        self.name, self.role = parse_role(leg)
        self.protocol, self.shelf = PROTOCOLS[self.name], Shelf()
        connections = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connections, timeout=aiohttp.ClientTimeout(connect=5))
        self.close = self._session.close

    async def send(self, leg: Prefill, body: RequestBody) -> None:
        """Where prefill sends its KV cache: does so, and the place on the shelf is empty."""
        digest = digest_of(body.words)
        await self._post(f"{leg.receiver}/kv/sent", {"key": leg.key, "prompt": digest})
        await self.shelf.take(leg.key, digest, {})

    async def fetch(self, leg: Decode, body: RequestBody) -> None:
        """The KV cache of a decode leg, or ApiError."""
        digest = digest_of(body.words)
        if leg.source:
            await self._post(f"{leg.source}/kv/take", {"key": leg.key, "prompt": digest, "claim": leg.claim})
        else:
            await self.shelf.take(leg.key, digest, leg.claim)

    async def _post(self, url: str, body: Json) -> None:
        try:
            async with self._session.post(url, data=orjson.dumps({"protocol": self.name, **body})) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise refused(f"no KV cache by {url}: {error or type(error).__name__}", 502) from None
        if answer.status != 200:
            try:
                message = orjson.loads(raw)["error"]["message"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                message = f"HTTP {answer.status} from {url}"
            raise refused(message, answer.status if answer.status == 502 else 400)

    async def receive(self, verb: str, message: Json) -> None:
        """A message of another server: a prefill server has `sent` a KV cache, or a decode server takes one."""
        if message["protocol"] != self.name:
            raise refused(f"this server speaks {self.name}, not {message['protocol']}")
        if verb != "sent":
            await self.shelf.take(message["key"], message["prompt"], message["claim"], self.protocol.at_once)
        elif self.name == "lmcache" and self.role == "decode":
            self.shelf.put(message["key"])
            self.shelf.give(message["key"], message["prompt"], {}, lambda: None)
        else:
            raise refused(f"{self.name}:{self.role} takes no KV cache that is sent")
