"""A server whose emission instants are known: what the client is judged against. Its own process, no gevent.

    python -m targets.reference_server [--port 0] [--log FILE] [--no-log] [--tls CERT KEY] [--emit JSON]

Prints one JSON line {"ready": true, "url": ..., "pid": ...} and runs until SIGTERM; then it writes its log to FILE (or
stdout) as JSON lines, one for each request in the order of their beginnings:

    {"id": the client's request id, "received": .., "first_due": .., "first": .., "last": .., "tokens": n,
     "late_ns": largest lateness of a write behind its own schedule, "left": true if the client left in mid-stream}

Instants are CLOCK_REALTIME in nanoseconds, taken right before each write. What to emit is in the request's JSON
body: "truth": {"ttft_s": .., "gap_s": .., "tokens": .., "step_s": ..}; ttft counts from the request's last byte, and
its prompt is its id. With step_s the first token waits for the next multiple of it: streams then emit together, in
bursts, as the steps of continuous batching make them. What a request leaves out comes from --emit, or from max_tokens.

Theory of operation. One thread, one epoll, and the streams in line at the instants that they wait for: streams in step
share an instant, so a burst costs no heap. It sleeps whole milliseconds only and spins for the rest, so that a write is
as punctual as the machine allows; what is logged is the actual instant, so a late write is late in the log too and
spoils nothing but the rate. A stream that fell behind by a whole gap goes on from now: no server makes up for lost time
in a burst.

Two things would put time between the instant in the log and the packet. The way through the kernel is cold after a
pause, by 30 us on the first write of a burst: so it spins by sending to itself. And where the machine's congestion
control paces (BBR), a write waits in the kernel, now and then for 40 ms: so the sockets have one that doesn't.
"""

from __future__ import annotations

import argparse
import heapq
import json
import select
import signal
import socket
import ssl
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns
from typing import Any

from .linux import send_unpaced

SPIN = 100_000  # ns that a sleep may overshoot
IDLE = 100_000_000  # ns
BURST = 64  # tokens; then the sockets are looked at again
WARM = bytes(256)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\nX-Request-Id: "
)
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"
_LIST = b'{"object": "list", "data": [{"id": "truth", "object": "model"}]}'
MODELS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_LIST), _LIST)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(data: dict[str, Any]) -> bytes:
    return chunk(b"data: %b\n\n" % json.dumps(data, separators=(",", ":")).encode())


def _prompt(body: dict[str, Any]) -> str:
    prompt = body["messages"][-1]["content"] if "messages" in body else body.get("prompt", "")
    return str(prompt)[:100].encode("ascii", "replace").decode().replace("\n", " ").strip()


def _unhindered(sock: socket.socket) -> None:
    """What is written is sent at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send_unpaced(sock)


def _pair() -> tuple[socket.socket, socket.socket]:
    """A connection to ourselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    _unhindered(here)
    return here, there


@dataclass(slots=True, eq=False)
class Stream:
    """One connection; one request at a time."""

    sock: socket.socket
    incoming: bytes = b""
    request_size: int = 0  # bytes of the whole request, 0 while its head is incomplete
    outgoing: bytes = b""
    event: bytes = b""  # of a token
    tail: bytes = b""  # what follows the last one
    record: dict[str, Any] = field(default_factory=dict)
    left: int = 0  # tokens
    due: int = 0  # instants, ns, of the next token, of the first and of the last that were written
    first: int = 0
    last: int = 0
    late: int = 0
    gap: int = 0
    step: int = 1

    def request(self) -> dict[str, Any] | None:
        """The JSON body of the request, once it is whole."""
        if not self.request_size:
            head, end, _ = self.incoming.partition(b"\r\n\r\n")
            if not end:
                return None
            lengths = (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self.request_size = len(head) + 4 + int(next(lengths, b"0"))
        if len(self.incoming) < self.request_size:
            return None
        whole, self.incoming = self.incoming[: self.request_size], self.incoming[self.request_size :]
        self.request_size = 0
        try:
            body = json.loads(whole.partition(b"\r\n\r\n")[2])
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self.write(MODELS)  # a GET of /v1/models or /health
            return None
        return body

    def begin(self, body: dict[str, Any], now: int, standing: dict[str, Any]) -> None:
        emit = {**standing, **body.get("truth", {})}
        self.left = int(emit.get("tokens", body.get("max_completion_tokens", body.get("max_tokens", 16))))
        self.gap = round(emit.get("gap_s", 0.01) * 1e9)
        self.due = now + round(emit.get("ttft_s", 0.05) * 1e9)
        self.step = max(1, round(emit.get("step_s", 0) * 1e9))
        self.due += -self.due % self.step
        self.first = self.last = self.late = 0
        self.record = {"id": _prompt(body), "received": now, "first_due": self.due, "tokens": self.left}
        self.note()
        start = {
            "id": f"truth-{self.record['id']}", "object": "chat.completion.chunk", "created": now // 10**9,
            "model": body.get("model", "truth"),
        }  # fmt: skip
        choice = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
        usage = {"prompt_tokens": 1, "completion_tokens": self.left, "total_tokens": 1 + self.left}
        self.event = _event(start | {"choices": [choice]})
        self.tail = _event(start | {"choices": [], "usage": usage}) + chunk(DONE) + LAST
        opening = _event(start | {"choices": [choice | {"delta": {"role": "assistant", "content": ""}}]})
        self.write(HEAD + self.record["id"].encode() + b"\r\n\r\n" + opening)

    def write(self, data: bytes) -> None:
        if self.outgoing:
            self.outgoing += data
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        self.outgoing = data[sent:]

    def emit(self) -> bool:
        """Writes the token that is due; is there another?"""
        if self.outgoing:
            data, self.outgoing = self.outgoing, b""
            self.write(data)
        if not self.left:
            self.due += 1_000_000
            return False
        self.last = now = time_ns()
        self.write(self.event)
        self.first = self.first or now
        self.late = max(self.late, now - self.due)
        self.left -= 1
        self.due += self.gap
        if self.due < now:
            self.due = now + self.gap
            self.due += -self.due % self.step
        if self.left:
            return True
        self.write(self.tail)
        self.note()
        return False

    def note(self, *, left: bool = False) -> None:
        """Completes the record of the request."""
        self.record |= {"first": self.first, "last": self.last, "late_ns": self.late, "left": left}


class Truth:
    """The server."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, *, logs: bool = True) -> None:
        self.logs = logs
        self.standing: dict[str, Any] = {}
        self.listener = socket.create_server(("127.0.0.1", port), backlog=16384)
        self.listener.setblocking(False)
        self.context = context
        self.port: int = self.listener.getsockname()[1]
        self.poll = select.epoll()
        self.poll.register(self.listener.fileno(), select.EPOLLIN)
        self.streams: dict[int, Stream] = {}
        self.instants: list[int] = []  # a heap
        self.lines: dict[int, deque[Stream]] = {}  # who waits for each of them
        self.log: list[dict[str, Any]] = []
        self.running = True
        self.warm = _pair()

    def run(self) -> None:
        while self.running:
            self._emit()
            ahead = self.instants[0] - time_ns() if self.instants else IDLE
            wait = (min(ahead, IDLE) - SPIN) // 1_000_000  # whole ms: epoll rounds up
            for fd, _ in self.poll.poll(max(0, wait) / 1000):
                if fd == self.listener.fileno():
                    self._accept()
                elif fd in self.streams:
                    self._serve(self.streams[fd])
            if wait <= 0 < ahead:
                here, there = self.warm
                here.send(WARM)
                there.recv(len(WARM))
        for stream in self.streams.values():
            if stream.left:
                stream.note()

    def _line_up(self, stream: Stream) -> None:
        line = self.lines.get(stream.due)
        if line is None:
            line = self.lines[stream.due] = deque()
            heapq.heappush(self.instants, stream.due)
        line.append(stream)

    def _emit(self) -> None:
        for _ in range(BURST):
            if not self.instants or self.instants[0] > time_ns():
                return
            line = self.lines[self.instants[0]]
            stream = line.popleft()
            if not line:
                del self.lines[heapq.heappop(self.instants)]
            try:
                more = stream.sock.fileno() >= 0 and stream.emit()
            except OSError:
                self._drop(stream)
                more = False
            if more or stream.outgoing:
                self._line_up(stream)

    def _accept(self) -> None:
        for _ in range(256):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            _unhindered(sock)
            if self.context is not None:
                try:
                    sock = self.context.wrap_socket(sock, server_side=True)
                except OSError:
                    continue
            sock.setblocking(False)
            stream = self.streams[sock.fileno()] = Stream(sock)
            self.poll.register(sock.fileno(), select.EPOLLIN)
            if self.context is not None:
                self._serve(stream)

    def _serve(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(1 << 18)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(stream)
            return
        stream.incoming += data
        body = stream.request()
        if body is not None:
            stream.begin(body, time_ns(), self.standing)
            if self.logs:
                self.log.append(stream.record)
            self._line_up(stream)

    def _drop(self, stream: Stream) -> None:
        if stream.left:
            stream.note(left=True)
        fd = stream.sock.fileno()
        if fd >= 0:
            self.poll.unregister(fd)
            del self.streams[fd]
            stream.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser("python -m targets.reference_server", description="known emission instants")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--no-log", action="store_true", help="for endless runs: keep no record of requests")
    parser.add_argument("--emit", type=json.loads, default={}, metavar="JSON", help="what requests leave out")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    options = parser.parse_args()
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
    server = Truth(options.port, context, logs=not options.no_log)
    server.standing = options.emit

    def stop(*_: object) -> None:
        server.running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    url = f"{'https' if context else 'http'}://127.0.0.1:{server.port}"
    sys.stdout.write(json.dumps({"ready": True, "url": url, "model": "truth", "name": "truth"}) + "\n")
    sys.stdout.flush()
    server.run()
    lines = "".join(json.dumps(record) + "\n" for record in server.log)
    if options.log:
        options.log.write_text(lines)
    else:
        sys.stdout.write(lines)


if __name__ == "__main__":
    main()
