"""The simulated endpoint as an HTTP server: aiohttp around the real-time driver.

aiohttp parses requests and frames headers; the tokens of a stream bypass it and go straight to the connection's
transport, one write a step, because three of these servers and their client share two cores in the default bake-off.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from ..clock import realtime_ns
from .answers import Format, framed, text, usage
from .asked import ApiError, Asked, read
from .compose import Endpoint
from .job import Job
from .realtime import Driver

LARGEST_BODY = 64 << 20
JSON = {"Content-Type": "application/json"}
# Buffering proxies are told to let events through.
STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
APIS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/openai/v1/chat/completions": "groq",
}


class Stream:
    """The answer to one streamed request. It stays small: a response has at most the model's context of tokens."""

    __slots__ = ("_cycle", "_format", "_write", "first", "last", "over", "sent")

    def __init__(self, format: Format, write: Callable[[bytes], None], over: asyncio.Future[None]) -> None:
        self._format, self._write, self.over = format, write, over
        self._cycle = format.cycle()
        self.sent = 0
        self.first = self.last = 0  # actual instants, nanoseconds since the epoch

    def token(self, planned: float) -> None:
        sent = self.sent
        if sent:
            self._write(self._cycle[sent & 15])
        else:
            self.first = realtime_ns()
            self._write(framed(self._format.tokens(text(0, 1))))
        self.sent = sent + 1

    def tokens(self, count: int) -> None:
        """Several tokens in one event, as speculative decoding gives them."""
        self.first = self.first or realtime_ns()
        self._write(framed(self._format.tokens(text(self.sent, count))))
        self.sent += count

    def end(self, count: int, closing: bytes) -> None:
        """The last token or tokens, and all that follows, in one write."""
        self.last = realtime_ns()
        self.first = self.first or self.last
        self._write(framed(self._format.tokens(text(self.sent, count)) + closing))
        self.sent += count
        if not self.over.done():
            self.over.set_result(None)


class Whole:
    """The answer to a request that is not streamed: only its end matters."""

    __slots__ = ("over", "sent")

    def __init__(self, over: asyncio.Future[None]) -> None:
        self.over, self.sent = over, 0

    def token(self, planned: float) -> None:
        self.sent += 1

    def tokens(self, count: int) -> None:
        self.sent += count

    def end(self, count: int, closing: bytes) -> None:
        self.sent += count
        if not self.over.done():
            self.over.set_result(None)


class Server:
    def __init__(self, endpoint: Endpoint, driver: Driver, name: str) -> None:
        self.endpoint, self.driver, self.name = endpoint, driver, name
        self.model, self.station = endpoint.model.name, endpoint.station
        self._salt = os.urandom(4).hex()
        self._count = 0
        self._context = endpoint.station.limit

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY)
        for path, api in APIS.items():
            app.router.add_post(path, self._answer(api))
        for path in ("/v1/models", "/openai/v1/models"):
            app.router.add_get(path, self.models)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def models(self, request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "created": 0, "owned_by": "phaseload", "root": self.name}
        card["max_model_len"] = self._context
        return web.Response(body=orjson.dumps({"object": "list", "data": [card]}), headers=JSON)

    def _answer(self, api: str) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                asked = read(api, await _body(request), self.model, self._context)
            except ApiError as error:
                return web.Response(status=error.status, body=error.body(), headers=JSON)
            self._count += 1
            prefix = "chatcmpl" if api != "completions" else "cmpl"
            format = Format(api, f"{prefix}-{self._salt}{self._count:08x}", self.model, realtime_ns() // 10**9)
            if asked.stream:
                return await self._stream(request, asked, format)
            return await self._whole(asked, format)

        return answer

    async def _stream(self, request: web.Request, asked: Asked, format: Format) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(format.opening() or b": \n\n")
        assert request.transport is not None
        stream = Stream(format, request.transport.write, asyncio.get_running_loop().create_future())
        await self._run(asked, format, stream)
        return response

    async def _whole(self, asked: Asked, format: Format) -> web.Response:
        whole = Whole(asyncio.get_running_loop().create_future())
        job = await self._run(asked, format, whole)
        counts, extra = self._facts(asked, format, job)
        body = format.whole(text(0, asked.output_tokens), counts, extra)
        return web.Response(body=body, headers=JSON)

    async def _run(self, asked: Asked, format: Format, sink: Stream | Whole) -> Job:
        """The job from its start to its last token; if the client leaves, the job's place is free."""

        def done(job: Job, now: float) -> None:
            counts, extra = self._facts(asked, format, job)
            sink.end(asked.output_tokens - sink.sent, format.closing(counts if asked.usage else None, extra))

        job = self.driver.submit(asked.prompt_tokens, asked.output_tokens, done, sink)
        try:
            await sink.over
        except asyncio.CancelledError:
            self.driver.cancel(job)
            raise
        return job

    def _facts(self, asked: Asked, format: Format, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
        """The usage object, and what the finish chunk carries beside."""
        counts = usage(job.prompt, job.output, job.cached)
        if not format.groq:
            return counts, {}
        counts["queue_time"] = round(job.begun - job.arrival, 9)
        counts["prompt_time"] = round(job.first - job.begun, 9)
        counts["completion_time"] = round(job.last - job.first, 9)
        counts["total_time"] = round(job.last - job.begun, 9)
        return counts, {"x_groq": {"id": format.id, "usage": counts}}


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, f"the body exceeds {LARGEST_BODY} bytes", "invalid_request_error", 413) from None


async def serve(endpoint: Endpoint, *, name: str, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is given the base URL once connections are accepted."""
    driver = Driver(endpoint)
    # A client that leaves must free its slot, hence handlers that are cancelled.
    runner = web.AppRunner(Server(endpoint, driver, name).app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=4096, shutdown_timeout=0.1)
    await site.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # A full collection over everything imported would hold a step up by tens of milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)
    bound = runner.addresses[0]
    ready(f"http://{bound[0]}:{bound[1]}")
    await stop.wait()
    await runner.cleanup()
    driver.close()
