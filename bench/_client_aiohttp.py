"""The same load by an ordinary client: aiohttp, a line reader and json, user-space time. Prints a JSON object."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

import aiohttp


async def one(session: aiohttp.ClientSession, load: dict[str, Any], stream: int, rows: dict[str, Any]) -> None:
    await asyncio.sleep(load["ramp_s"] * stream / load["streams"])
    for turn in range(load["rounds"]):
        message = {"role": "user", "content": f"{stream}-{turn}"}
        body = {"model": "m", "stream": True, "messages": [message], "truth": load["truth"]}
        first = last = tokens = 0
        async with session.post(load["url"] + "/v1/chat/completions", json=body) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if event["choices"] and event["choices"][0]["delta"].get("content"):
                    last = time.time_ns()
                    first = first or last
                    tokens += 1
        row = {"ok": tokens == load["tokens"], "first": first, "last": last, "events": tokens, "reads": tokens}
        rows[f"{stream}-{turn}"] = {**row, "shared": False}


async def main() -> None:
    load = json.loads(sys.argv[1])
    rows: dict[str, Any] = {}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=False), timeout=timeout) as session:
        before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        await asyncio.gather(*(one(session, load, stream, rows) for stream in range(load["streams"])))
        cpu = time.process_time() - cpu
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    json.dump({"cpu_s": cpu, "rows": rows, "grown_kb": grown}, sys.stdout)


asyncio.run(main())
