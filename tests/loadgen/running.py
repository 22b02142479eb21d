"""Runs for the tests, in real processes and (but for Locust) in this one, and a small endpoint that answers or
misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn, Self

import psutil
import pyarrow as pa
import pytest

from loadgen import processes, replays
from loadgen.cli import bakeoff, runs
from reports.store import row_files
from tests import commands


class Endpoint(ThreadingHTTPServer):
    """Streams chat completions; `manner` says how. It remembers every prompt and when it came and was answered."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, manner: str = "well", tokens: int = 4, gap: float = 0.005, ttft: float = 0.01, alone: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(("127.0.0.1", 0), _Answer)
        self.manner, self.tokens, self.gap, self.ttft = manner, tokens, gap, ttft
        self.fingerprint: Callable[[], str] | None = None  # that answers name, as of now
        self.turn = threading.Lock() if alone else contextlib.nullcontext()  # alone: one request at a time
        self.headers = headers or {}  # of its answers
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.dogs: set[str | None] = set()  # X-Dog headers
        self.spans: dict[str, tuple[float, float]] = {}
        self.word = "w"  # of its answers
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that was killed has closed its connection: not worth a traceback."""

    @property
    def repeated(self) -> list[str]:
        return [prompt for prompt, times in Counter(self.prompts).items() if times > 1]


class _Answer(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        began = time.time()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        said = said if isinstance(said, str) else " ".join(map(str, said))
        self.server.prompts.append(said)
        self.server.bodies.append(body)
        self.server.paths.add(self.path)
        self.server.dogs.add(self.headers["x-dog"])
        with contextlib.suppress(OSError), self.server.turn:
            getattr(self, f"be_{self.server.manner}")(body)
        self.server.spans[said] = (began, time.time())

    def be_well(self, body: dict[str, Any]) -> None:
        self._head()
        self._tokens(min(self.server.tokens, int(body.get("max_tokens", body.get("max_completion_tokens", 4)))))
        self._event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": self.server.tokens}})
        self._end()

    def be_silent(self, body: dict[str, Any]) -> None:
        """Tells no usage."""
        self._head()
        self._tokens(int(body["max_tokens"]))
        self._end()

    def _end(self) -> None:
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def be_failing(self, _: dict[str, Any]) -> None:
        answer = b'{"error": {"message": "boom"}}'
        self.send_response(500)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def be_flaky(self, body: dict[str, Any]) -> None:
        """Fails the first try of each prompt."""
        said = self.server.prompts[-1]
        if self.server.prompts.count(said) == 1:
            self.be_failing(body)
        else:
            self.be_well(body)

    def be_cutting(self, _: dict[str, Any]) -> None:
        self._head()
        self._tokens(2)
        self.close_connection = True
        self.connection.close()

    def be_broken(self, _: dict[str, Any]) -> None:
        self._head()
        self._tokens(1)
        self._chunk(b"data: {not json\n\n")
        self._chunk(b"")

    def be_endless(self, _: dict[str, Any]) -> None:
        self._head()
        for _ in range(600):
            self._tokens(1)
            time.sleep(0.1)

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if "authorization" in self.headers:  # a server that tells what it shouldn't
            self.send_header("X-Request-Id", "for " + self.headers["authorization"])
            self.send_header("X-RateLimit-Key", self.headers["authorization"].split()[-1])
        self.end_headers()

    def _tokens(self, count: int) -> None:
        for number in range(count):
            time.sleep(self.server.gap if number else self.server.ttft)
            fingerprint = {"system_fingerprint": self.server.fingerprint()} if self.server.fingerprint else {}
            self._event(
                {"choices": [{"index": 0, "delta": {"content": f"{self.server.word}{number} "}}], **fingerprint}
            )

    def _event(self, data: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextlib.contextmanager
def endpoint(manner: str = "well", **about: Any) -> Iterator[Endpoint]:
    server = Endpoint(manner, **about)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def relay(server: Endpoint, family: socket.AddressFamily, where: Any) -> Iterator[socket.socket]:
    """A socket whose every connection leads to the endpoint: its Unix socket, or a proxy, which is asked for URLs."""
    with socket.socket(family) as listener:
        listener.bind(where)
        listener.listen()
        thread = threading.Thread(target=_relay, args=(listener, server.server_address), daemon=True)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        thread.join(5)


def _relay(listener: socket.socket, to: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            near, far = listener.accept()[0], socket.create_connection(to)
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pipe, args=ends, daemon=True).start()


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def trace(path: Path, count: int, gap_s: float = 0.02, **columns: Any) -> Path:
    """Our own CSV with `count` requests, one every `gap_s`."""
    names = ["due_s", "prompt_tokens", "output_tokens", *columns]
    lines = [",".join(names)]
    for row in range(count):
        values = [row * gap_s, 6 + row % 5, 4, *(column[row] for column in columns.values())]
        lines.append(",".join(map(str, values)))
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments: str | Path) -> list[str]:
    """`phaseload ...`; unless asked for, without a probe, so that an endpoint counts the run's own requests only, and
    without report.html: it takes longer than most of these replays."""
    quiet = []
    if arguments[0] in ("replay", "bakeoff"):
        quiet = [f"--no-{step}" for step in ("probe", "report") if f"--{step}" not in arguments]
    return [sys.executable, "-P", "-m", "loadgen", *map(str, arguments), *quiet]


def phaseload(*arguments: str | Path, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """From its start to its end as a user has it; see the fixture `replayed` for where that isn't the subject."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


class Replays:
    """`phaseload replay` or `bakeoff` in this process, but for Locust: one that stays for many runs, as the library
    has it, since its start takes longer than most of these replays."""

    def __init__(self) -> None:
        self._locusts: dict[int, processes.LocustProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for locust in self._locusts.values():
            locust.__exit__()

    def __call__(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (runs, bakeoff):
                patch.setattr(module, "become_locust", self._become)
            return commands.phaseload(*command(*arguments)[4:], cwd=cwd)

    def _become(self, folder: Path, workers: processes.Workers, extra: list[str]) -> NoReturn:
        assert not extra
        if workers.count not in self._locusts:
            self._locusts[workers.count] = processes.LocustProcess(workers)
        locust = self._locusts[workers.count]
        output = locust._output.fileno()
        before = os.fstat(output).st_size
        locust.record(folder)
        sys.stderr.write(os.pread(output, 1 << 20, before).decode())
        sys.exit(replays.conclude(folder))


def refused(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that must not get as far as Locust."""

    def started(*_: Any) -> None:
        raise AssertionError("the run was started")

    with pytest.MonkeyPatch.context() as patch:
        for module in (runs, bakeoff):
            patch.setattr(module, "become_locust", started)
        return commands.phaseload(*command(*arguments)[4:], cwd=cwd)


@contextlib.contextmanager
def running(*arguments: str | Path, cwd: Path, argv: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own, ended whatever happens."""
    process = subprocess.Popen(
        argv or command(*arguments),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def locust_children() -> list[psutil.Process]:
    """Processes of Locust that this one has started, forked workers too."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "loadgen.run.locustfile" in _command_line(child)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(condition: Any, seconds: float = 30.0) -> Any:
    """What the condition gives, once it is true."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition}")


def about(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def expected(run: Path, code: int) -> int:
    """The exit code: on a machine too busy for a valid run, 3 is right."""
    judged = json.loads((run / "summary.json").read_text())["validity"]["status"]
    return 3 if judged == "invalid" else code


def rows(run: Path) -> pa.Table:
    return row_files.read(run)
