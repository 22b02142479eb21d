"""Opens N streams at once and reads them to their end: a client that costs little. URL STREAMS TOKENS PROMPT_TOKENS."""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import urlsplit


class Drain(asyncio.Protocol):
    def __init__(self, request: bytes, over: asyncio.Future[None]) -> None:
        self.request, self.over = request, over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(None)


async def main(url: str, streams: int, tokens: int, prompt: int) -> None:
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    body = {"messages": [{"role": "user", "content": "w " * prompt}], "max_tokens": tokens, "stream": True}
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
    request = head.encode() + raw
    over: list[asyncio.Future[None]] = [loop.create_future() for _ in range(streams)]
    for future in over:
        await loop.create_connection(lambda future=future: Drain(request, future), parts.hostname, parts.port)
    await asyncio.gather(*over)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
