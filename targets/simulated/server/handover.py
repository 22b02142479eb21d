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
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import aiohttp
import orjson

from .api import Json, RequestBody
from .leg_protocols import PROTOCOLS, Decode, Prefill, parse_role, refused, tokens

RENDEZVOUS = 2.0  # seconds that a decode leg waits for its prefill leg where both are sent at once


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
