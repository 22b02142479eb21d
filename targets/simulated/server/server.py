"""The simulated endpoint as an HTTP server: aiohttp around the real-time driver.

aiohttp parses requests and frames headers; the tokens of a stream bypass it and go straight to the connection's
transport, one write a step, because three of these servers and their client share two cores in the default bake-off.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import orjson
from aiohttp import web

from ...clock import realtime_ns
from ...linux import send_unpaced
from ..build import Endpoint
from ..engine.job import Job
from ..engine.kv_memory import chain
from ..profiles import ServerOptions
from .api import ApiError, Faults, Format, Json, RateLimits, RequestBody, parse, text
from .leg_protocols import Decode, Handover, Leg, LegRequest, Prefill, digest_of, leg_of, refused
from .realtime import Driver, FaultyStream, Sink, Stamped, Stream, stamped

LARGEST_BODY = 64 << 20
JSON = {"Content-Type": "application/json"}
# The last header makes buffering proxies let events through.
STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
APIS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/openai/v1/chat/completions": "groq"}

Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    def __init__(self, endpoint: Endpoint, driver: Driver, options: ServerOptions) -> None:
        self.endpoint, self.driver, self.metrics = endpoint, driver, driver.metrics
        self.station, self.legs, self.model = endpoint.station, endpoint.legs, endpoint.model.name
        self.faults = Faults(options.fault, options.seed)
        self.limits = RateLimits(options.limit_requests, options.limit_tokens)
        self._salt = os.urandom(4).hex()
        self.handover = Handover(options.leg)
        self._count = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY)
        for path, api in APIS.items():
            app.router.add_post(path, self._refusing(partial(self._answer, api)))
        for path in ("/v1/models", "/openai/v1/models"):
            app.router.add_get(path, self.models_page)
        app.router.add_get("/health", self.health_page)
        app.router.add_get("/metrics", self.metrics_page)
        app.router.add_get("/query", self.engine_page)
        app.router.add_post("/kv/{verb}", self._refusing(self.kv_channel))
        app.on_cleanup.append(lambda _: self.handover.close())
        return app

    async def health_page(self, request: web.Request) -> web.Response:
        return web.Response()

    async def models_page(self, request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "created": 0, "owned_by": "phaseload"}
        card |= {"root": self.endpoint.name, "max_model_len": self.station.limit}
        return web.Response(body=orjson.dumps({"object": "list", "data": [card]}), headers=JSON)

    async def metrics_page(self, request: web.Request) -> web.Response:
        return web.Response(text=self.metrics.text(self.station), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def engine_page(self, request: web.Request) -> web.Response:
        """Engines by data-parallel rank, as Mooncake's bootstrap server lists them."""
        return web.json_response({"0": {"engine_id": self._salt, "worker_addr": {"0": {"0": f"tcp://{request.host}"}}}})

    async def kv_channel(self, request: web.Request) -> web.Response:
        """Between servers."""
        try:
            await self.handover.receive(request.match_info["verb"], orjson.loads(await request.read()))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise refused(f"not a message of the side channel: {error!r}") from None
        return web.Response()

    def _refusing(self, answer: Answerer) -> Answerer:
        """An answer that may be an ApiError."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request)
            except ApiError as error:
                return web.Response(status=error.status, body=error.body, headers={**JSON, **error.headers})
            finally:
                if connection := stamped(request.transport):
                    connection.received = 0  # what comes next is another request

        return guarded

    async def _answer(self, api: str, request: web.Request) -> web.StreamResponse:
        connection = stamped(request.transport)
        received = (connection and connection.received) or realtime_ns()
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise ApiError(413, f"the body exceeds {LARGEST_BODY} bytes", code=413) from None
        body = parse(api, raw, self.model, self.station.limit)
        limits = self._within_limits(body)
        fault = self.faults.draw()
        if fault == "http500":
            raise ApiError(500, "a fault of --fault http500", "internal_server_error", 500)
        self._count += 1
        prefix = "cmpl" if api == "completions" else "chatcmpl"
        format = Format(api, f"{prefix}-{self._salt}{self._count:08x}", self.model, realtime_ns() // 10**9)
        headers = {"x-request-id": format.id, **limits}
        leg = self._leg(request, body, format.id)
        if isinstance(leg, Decode):
            await self.handover.fetch(leg, body)
        elif leg:
            body = replace(body, output_tokens=1)
        if body.stream:
            return await self._stream(request, body, format, leg, received, fault, headers)
        job = await self._run(body, format, leg, Sink(received))
        counts, extra = self._facts(body, format, job)
        choice: Json = {}
        if isinstance(leg, Prefill):
            if leg.receiver:
                await self.handover.send(leg, body)
            extra, choice = extra | leg.answer, leg.choice
        raw = format.whole(text(0, body.output_tokens), counts, extra, choice)
        return web.Response(body=raw, headers={**JSON, **headers})

    def _leg(self, request: web.Request, body: RequestBody, answer_id: str) -> Leg | None:
        name = request.headers.get("X-Request-Id", "")
        leg_request = LegRequest(body, name, request.host, answer_id, self._salt)
        leg = leg_of(self.handover.protocol, self.handover.role, leg_request)
        if leg and self.legs is None:
            raise refused("this endpoint has no KV connector")
        return leg

    def _within_limits(self, body: RequestBody) -> dict[str, str]:
        """The rate-limit headers; ApiError 429 where a limit is reached."""
        wait, fault, headers = self.limits.take(body.prompt_tokens + body.output_tokens, self.driver.now())
        if wait:
            kind = "per minute (TPM)" if fault == "tokens" else "per day (RPD)"
            message = f"Rate limit reached for model `{self.model}` on {fault} {kind}. Please try again in {wait:.2f}s."
            raise ApiError(429, message, fault, "rate_limit_exceeded", headers=headers)
        return headers

    async def _stream(
        self, request: web.Request, body: RequestBody, format: Format, leg: Leg | None, received: int,
        fault: str | None, headers: dict[str, str],
    ) -> web.StreamResponse:  # fmt: skip
        response = web.StreamResponse(headers={**STREAM, **headers})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(format.opening() or b": \n\n")  # a comment sends the headers of a completion
        transport = request.transport
        if transport is None:
            raise asyncio.CancelledError  # the client has left
        stream = Stream(format, transport, received)
        if fault:
            stream = FaultyStream(format, transport, received, fault, self.faults.strike_after(body.output_tokens))
        await self._run(body, format, leg, stream)
        return response

    async def _run(self, body: RequestBody, format: Format, leg: Leg | None, sink: Sink) -> Job:
        """The job from its start to its last token; if the client leaves, the job's place is free."""
        legs = self.legs

        def closing(job: Job) -> bytes:
            counts, extra = self._facts(body, format, job)
            return format.closing(counts if body.usage else None, extra)

        def done(job: Job, now: float) -> None:
            if isinstance(leg, Prefill) and legs:
                fetched = partial(self.driver.change, legs.fetched, job)
                self.handover.shelf.give(leg.key, digest_of(body.words), leg.handed, fetched)
            sink.end(body.output_tokens, lambda: closing(job))
            self.metrics.add(job)
            if self.driver.log:
                self.driver.log.request(format.id, job, sink.received, sink.first, sink.last)

        enter, cancel = self.station.submit, self.station.cancel
        if leg and legs:
            enter, cancel = (legs.prefill_leg if isinstance(leg, Prefill) else legs.decode_leg), legs.cancel
        prefix = chain(body.words) if self.endpoint.caches else ()
        if isinstance(leg, Prefill):
            self.handover.shelf.put(leg.key)
        job = self.driver.start(enter, body.prompt_tokens, body.output_tokens, done, sink, prefix)
        try:
            await sink.over
        finally:
            self.driver.cancel(job, cancel)
            if isinstance(leg, Prefill):
                self.handover.shelf.close(leg.key)
        return job

    def _facts(self, body: RequestBody, format: Format, job: Job) -> tuple[Json, Json]:
        """The usage object, and what the finish chunk carries beside."""
        queue, prefill, transfer, decode = job.phases()
        counts: Json = {"prompt_tokens": job.prompt, "completion_tokens": job.output}
        counts |= {"total_tokens": job.prompt + job.output, "prompt_tokens_details": {"cached_tokens": job.cached}}
        extra: Json = {}
        if format.groq:
            counts |= {"queue_time": queue, "prompt_time": prefill + transfer, "completion_time": decode}
            counts["total_time"] = prefill + transfer + decode
            extra["x_groq"] = {"id": format.id, "usage": counts}
        nvext: Json = {}
        if "timing" in body.nvext:
            nvext["timing"] = {
                "prefill_wait_time_ms": queue * 1e3, "prefill_time_ms": prefill * 1e3,
                "kv_transfer_time_ms": transfer * 1e3, "decode_time_ms": decode * 1e3,
                "ttft_ms": (job.first - job.arrival) * 1e3, "total_time_ms": (job.last - job.arrival) * 1e3,
                "kv_hit_rate": job.cached / job.prompt,
            }  # fmt: skip
        if "worker_id" in body.nvext:
            nvext["worker_id"] = {"prefill_worker_id": job.prefill_worker, "decode_worker_id": job.decode_worker}
        if nvext:
            extra["nvext"] = nvext
        return counts, extra


async def serve(endpoint: Endpoint, options: ServerOptions, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is given the base URL once connections are accepted. Raises OSError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    driver = Driver(endpoint, options.log)
    app = Server(endpoint, driver, options).app()
    # A client that leaves must free its slot, hence handlers that are cancelled.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    server = None
    try:
        await runner.setup()
        handler = runner.server
        assert handler is not None
        server = await asyncio.get_running_loop().create_server(
            lambda: Stamped(handler()), options.host, options.port, backlog=4096, reuse_address=True
        )
        for listener in server.sockets:
            send_unpaced(listener)
        # A full collection over everything imported would hold a step up by tens of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 1_000)
        host, port = server.sockets[0].getsockname()[:2]
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await stop.wait()
    finally:
        if server:
            server.close()
        await runner.cleanup()
        driver.close()
