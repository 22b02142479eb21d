"""Real servers for the client's tests: the known-truth server, and one that says exactly what a test tells it to."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme

from targets.client.http_client import HttpClient
from targets.clock import Clock
from targets.exchange import Exchange, Outcome
from targets.target import Target
from tests.exchanges import make_call

from .scripted import Script, Scripted, good


class TruthServer:
    """`python -m targets.reference_server` in its own process."""

    def __init__(self, log: Path, *more: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "targets.reference_server", "--log", str(log), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["url"]

    def stop(self) -> list[dict[str, Any]]:
        """Ends it; its log, a record a request."""
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.communicate(timeout=10)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def truth(tmp_path: Path) -> Iterator[TruthServer]:
    server = TruthServer(tmp_path / "truth.jsonl")
    yield server
    if server.process.poll() is None:
        server.stop()


class Caller:
    """A client's side: starts asks at a URL, waits for their exchanges."""

    def __init__(self, url: str, **spec: Any) -> None:
        self.clock = Clock()
        self.target = HttpClient(Target("under-test", url, "m", **spec), self.clock)
        self.over: list[Exchange] = []
        self.started = 0

    def start(self, prompt: str = "a few words", **ask: Any) -> None:
        fields: dict[str, Any] = {"prompt_tokens": 3, "output_tokens": 4, **ask}
        self.target.start(make_call(self.started, self.clock.now(), prompt, **fields), self.over.append)
        self.started += 1

    def wait(self, seconds: float = 10.0) -> list[Exchange]:
        with gevent.Timeout(seconds):
            while len(self.over) < self.started:
                gevent.sleep(0.005)
        return self.over

    def ask(self, **ask: Any) -> Exchange:
        self.start(**ask)
        return self.wait()[-1]


@pytest.fixture
def caller() -> Iterator[type[Caller]]:
    """The class; every one that is made is closed."""
    made: list[Caller] = []

    class Closing(Caller):
        def __init__(self, url: str, **spec: Any) -> None:
            super().__init__(url, **spec)
            made.append(self)

    yield Closing
    for one in made:
        one.target.close()
        assert not one.target._busy
        assert len(one.over) == one.started, "an exchange was never handed back"
        assert all(isinstance(exchange.outcome, Outcome) for exchange in one.over)


Serve = Callable[..., Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Scripted] = []

    def start(script: Script = good, *where: Any) -> Scripted:
        made.append(Scripted(script, *where))
        return made[-1]

    yield start
    for server in made:
        server.close()


Secure = Callable[..., tuple[Scripted, str]]


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    """A server on https for the given name, and the file of the authority that vouches for it."""
    made: list[Scripted] = []

    def start(script: Any = good, name: str = "127.0.0.1") -> tuple[Scripted, str]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        server = Scripted(script)
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(server.context)
        made.append(server)
        return server, str(tmp_path / "ca.pem")

    yield start
    for server in made:
        server.close()
