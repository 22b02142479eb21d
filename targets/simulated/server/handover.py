"""How the KV cache of a prompt comes from the server of one leg to the server of the other.

Theory of operation. A prefill leg puts its prompt on the shelf under the protocol's key, and computes it. The decode
server takes it from there before its engine begins the transfer; LMCache's prefill server sends it instead, and answers
once it is there. A KV cache is given once, and only for the prompt that it was computed for and with all that prefill
has handed out. Real servers meet over ZMQ, RDMA or a bootstrap server; these over HTTP on their own ports.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import aiohttp
import orjson

from .leg_protocols import PROTOCOLS, Decode, Leg, LegRequest, Prefill, leg_of, parse_role, refused, tokens
from .request_body import Json, RequestBody

RENDEZVOUS = 2.0  # seconds that a decode leg waits for its prefill leg where both are sent at once


def _digest(words: tuple[Any, ...]) -> str:
    return blake2b(array("q", tokens(words)).tobytes(), digest_size=16).hexdigest()


class Held:
    """A KV cache on the shelf, or the place where one is expected."""

    __slots__ = ("came", "digest", "handed", "over", "release")

    def __init__(self) -> None:
        self.came, self.over = asyncio.Event(), asyncio.Event()  # of the prefill leg
        self.digest = ""  # of the prompt, once its KV cache is complete
        self.handed: Json = {}
        self.release: Callable[[], None] = lambda: None


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
        held = self._held[key]
        held.digest, held.handed, held.release = digest, handed, release
        held.over.set()

    def close(self, key: str) -> None:
        """The prefill leg is over; if it gave nothing, a waiting decode leg is refused."""
        held = self._held.get(key)
        if held and not held.digest:
            del self._held[key]
            held.over.set()

    async def take(self, key: str, digest: str, claim: Json, patient: bool) -> None:
        """ApiError unless there is one for that prompt and claim. `patient`: wait for the prefill leg."""
        held = self._held.setdefault(key, Held()) if patient else self._held.get(key)
        if held and patient:
            await self._come(key, held)
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

    async def _come(self, key: str, held: Held) -> None:
        try:
            await asyncio.wait_for(held.came.wait(), RENDEZVOUS)
        except TimeoutError:
            self._held.pop(key, None)
            raise refused(f"no prefill leg for {key} within {RENDEZVOUS:g} s") from None
        await held.over.wait()


class Handover:
    """One server's part in the protocol. `engine`: its name."""

    def __init__(self, leg: str, engine: str) -> None:
        self.name, self.role = parse_role(leg)
        self.protocol, self.engine, self.shelf = PROTOCOLS[self.name], engine, Shelf()
        self._session: aiohttp.ClientSession | None = None

    def leg(self, request: LegRequest, body: RequestBody) -> Leg | None:
        return leg_of(self.protocol, self.role, request, body)

    def computed(self, leg: Prefill, body: RequestBody, blocks: int, release: Callable[[], None]) -> None:
        """A prefill leg's prompt may be taken from now on; `release` is called when it is."""
        self.shelf.give(leg.key, _digest(body.words), self.protocol.handed(leg, self.engine, blocks), release)

    async def answer(self, leg: Prefill, body: RequestBody, blocks: int) -> tuple[Json, Json]:
        """What prefill's answer and its choice have beside the usual."""
        if leg.receiver:
            await self._send(leg, body)
        return self.protocol.answer(leg, body, self.protocol.handed(leg, self.engine, blocks))

    async def _send(self, leg: Prefill, body: RequestBody) -> None:
        digest = _digest(body.words)
        await self._post(f"{leg.receiver}/kv/sent", {"key": leg.key, "prompt": digest})
        await self.shelf.take(leg.key, digest, {}, False)

    async def fetch(self, leg: Decode, body: RequestBody) -> None:
        """The KV cache of a decode leg, or ApiError."""
        digest = _digest(body.words)
        if leg.source:
            await self._post(f"{leg.source}/kv/take", {"key": leg.key, "prompt": digest, "claim": leg.claim})
        else:
            await self.shelf.take(leg.key, digest, leg.claim, False)

    async def _post(self, url: str, body: Json) -> None:
        if self._session is None:
            connections = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connections, timeout=aiohttp.ClientTimeout(connect=5))
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

    async def take(self, message: Json) -> None:
        """A decode server takes a KV cache from here."""
        self._same(message)
        await self.shelf.take(message["key"], message["prompt"], message["claim"], self.protocol.at_once)

    def sent(self, message: Json) -> None:
        """A prefill server has sent a KV cache."""
        self._same(message)
        if self.name != "lmcache" or self.role != "decode":
            raise refused(f"{self.name}:{self.role} takes no KV cache that is sent")
        self.shelf.put(message["key"])
        self.shelf.give(message["key"], message["prompt"], {}, lambda: None)

    def _same(self, message: Json) -> None:
        if message["protocol"] != self.name:
            raise refused(f"this server speaks {self.name}, not {message['protocol']}")

    async def close(self) -> None:
        if self._session:
            await self._session.close()
