"""Driver two, real time: sleeps to each event of the engine and lets it happen; and a connection's two ends, when a
request's first bytes came and where its answer's tokens go.

The engine's instants are absolute, so being late once makes nothing later late: the plan goes on from planned
instants. One kernel timer is set to the next event; when it goes off, everything due happens. How late each step went
out is kept as a histogram. The server's own log has planned and actual instants side by side, a JSON object a line:

    {"id", "prompt", "output", "received", "arrival", "planned": [first, last], "actual": [first, last]}     a request
    {"step": [planned, begun, ended, streams]}                                                              a step sent

`received` is when the server began to read the request, `arrival` when it was parsed and entered the engine.
The log's instants are nanoseconds since the epoch, so they can be compared with a client's.

First bytes are stamped before aiohttp's parser, tasks and routes, which take 0.3 ms: a protocol stands between the
connection's transport and aiohttp's own, and passes everything on. A stream writes straight to its connection's
transport, one write a step. It needs no back-pressure: a response is at most the model's context of tokens, so what a
client that doesn't read can pile up is bounded.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

import orjson

from traces.request import NS_PER_S

from ...clock import monotonic_ns, realtime_ns
from ...linux import Timerfd
from ..build import Endpoint
from ..engine.job import Job
from .api import WORDS, Format, framed, text
from .metrics import Metrics

Change = Callable[[Job, float], None]  # what happens to a job at an instant

BROKEN = framed(b'data: {"id": "chatcmpl-broken", "choices": [{"delta": {"cont\n\n')
LINGER_0 = struct.pack("ii", 1, 0)  # close with a reset instead of a FIN


class Log:
    def __init__(self, path: str, origin: int) -> None:
        """`origin`: the engine's start on CLOCK_MONOTONIC."""
        self._file = Path(path).open("wb", buffering=1 << 20)  # noqa: SIM115 - closed by close
        self._origin = realtime_ns() - monotonic_ns() + origin
        self.close = self._file.close

    def _at(self, *seconds: float) -> list[int]:
        return [self._origin + round(instant * NS_PER_S) for instant in seconds]

    def request(self, id: str, job: Job, received: int, first: int, last: int) -> None:
        row = {"id": id, "prompt": job.prompt, "output": job.output, "received": received}
        row |= {"arrival": self._at(job.arrival)[0], "planned": self._at(job.first, job.last), "actual": [first, last]}
        self._file.write(orjson.dumps(row) + b"\n")

    def step(self, planned: float, begun: float, ended: float, streams: int) -> None:
        self._file.write(orjson.dumps({"step": [*self._at(planned, begun, ended), streams]}) + b"\n")


class Driver:
    """Runs an endpoint's engine on the running event loop; a job's sink is where its tokens go."""

    def __init__(self, endpoint: Endpoint, log: str | None = None) -> None:
        self.queue, self.metrics = endpoint.queue, Metrics(endpoint.model.name, endpoint.model.kv_bytes)
        self.origin = monotonic_ns()
        self.log = Log(log, self.origin) if log else None
        self.queue.emit = self._emit
        self._timer = Timerfd()
        self._set = inf  # what the timer is set to
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.fd, self._due)

    def now(self) -> float:
        """Engine seconds."""
        return (monotonic_ns() - self.origin) / NS_PER_S

    def start(
        self, enter: Change, prompt: int, output: int, done: Change, sink: Sink, prefix: tuple[tuple[int, int], ...]
    ) -> Job:
        """A job that arrives at this instant, by `enter`: the station's `submit`, or one of its legs."""
        now = self.now()
        self.queue.run(now)
        self._count += 1
        job = Job(self._count, now, prompt, output, done, sink, prefix)
        enter(job, now)
        self._arm()
        return job

    def cancel(self, job: Job, leave: Change) -> None:
        """Takes the job out by `leave`, unless it is over."""
        if job.last < 0:
            self.change(lambda job, now: leave(job, now) if job.last < 0 else None, job)

    def change(self, change: Change, job: Job) -> None:
        """Applies `change` to a job at this instant."""
        now = self.now()
        self.queue.run(now)
        change(job, now)
        self._arm()

    def close(self) -> None:
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()
        if self.log:
            self.log.close()

    def _arm(self) -> None:
        instant = self.queue.next
        if instant != self._set and instant != inf:
            self._set = instant
            self._timer.set(self.origin + int(instant * NS_PER_S))

    def _due(self) -> None:
        self._set = inf
        self.queue.run(self.now())
        self._arm()
        if self._set == inf:  # setting the timer anew would have made it unreadable as well
            self._timer.clear()

    def _emit(self, jobs: Iterable[Job], planned: float) -> None:
        begun = self.now()
        self.metrics.late.add(max(0.0, begun - planned))
        streams = 0
        for job in jobs:
            streams += 1
            if job.counts is None:
                job.sink.token()
            else:
                steps = job.place.batch.steps - job.entered
                job.sink.tokens(job.counts[steps - 1] if steps else 1)
        if self.log:
            self.log.step(planned, begun, self.now(), streams)


class Stamped(asyncio.Protocol):
    """`received`: ns since the epoch of the first bytes since it was last set to 0."""

    def __init__(self, inner: Any) -> None:
        self.received = 0
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._pass_on = inner.data_received

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.received = realtime_ns()
        self._pass_on(data)


def stamped(transport: asyncio.BaseTransport | None) -> Stamped | None:
    """The protocol that stamps this connection's requests; None once the client has left."""
    protocol = transport.get_protocol() if isinstance(transport, asyncio.Transport) else None
    return protocol if isinstance(protocol, Stamped) else None


class Sink:
    """Where the driver gives a job's tokens; it keeps the actual instants, ns since the epoch. By itself it is the
    answer given whole: its writer waits until it is `over`."""

    __slots__ = ("first", "last", "over", "received")

    def __init__(self, received: int) -> None:
        self.received = received
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = self.last = 0

    def token(self) -> None:
        self.tokens(1)

    def tokens(self, count: int) -> None:
        """Several at once, as speculative decoding gives them."""
        self.first = self.first or realtime_ns()

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The rest of `output` tokens has come out, and the answer is complete."""
        self.last = realtime_ns()
        self.first = self.first or self.last
        self.finish()

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Stream(Sink):
    __slots__ = ("_cycle", "_format", "_write", "sent")

    def __init__(self, format: Format, transport: asyncio.Transport, received: int) -> None:
        super().__init__(received)
        self._format, self._write = format, transport.write
        self._cycle = format.cycle()
        self.sent = 0

    def token(self) -> None:
        sent = self.sent
        if sent:
            self._write(self._cycle[sent % len(WORDS)])
            self.sent = sent + 1
        else:
            self.tokens(1)

    def tokens(self, count: int) -> None:
        super().tokens(count)
        self._write(framed(self._format.tokens(text(self.sent, count))))
        self.sent += count

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        """The last tokens and all that follows, in one write."""
        super().end(output, closing)  # the instant of the last token is that before the write
        last = self._format.tokens(text(self.sent, output - self.sent))
        self._write(framed(last + closing()))
        self.sent = output


class FaultyStream(Stream):
    """A stream that goes wrong by `kind` (see `Faults`) after `after` tokens."""

    __slots__ = ("_after", "_kind", "_struck", "_transport")

    def __init__(self, format: Format, transport: asyncio.Transport, received: int, kind: str, after: int) -> None:
        super().__init__(format, transport, received)
        self._transport, self._kind, self._after, self._struck = transport, kind, after, False

    def token(self) -> None:
        if not self._strikes(1):
            super().token()

    def tokens(self, count: int) -> None:
        if not self._strikes(count):
            super().tokens(count)

    def end(self, output: int, closing: Callable[[], bytes]) -> None:
        if not self._strikes(output):
            super().end(output, closing)

    def _strikes(self, count: int) -> bool:
        """Is the stream broken by now? A malformed one is, and goes on all the same."""
        if self._struck:
            return self._kind != "malformed"
        if self.sent + count <= self._after:
            return False
        self._struck = True
        if self._kind == "malformed":
            self._write(BROKEN)
            return False
        if self._kind == "truncate":
            self.finish()
        elif self._kind == "reset":
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            self._transport.abort()
        return True
