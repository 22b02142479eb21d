"""A simulated endpoint in a process of its own, as users start it, and a plain client for it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def serving(name: str, *options: str) -> Iterator[str]:
    """The base URL of a running server; at the end it must go on SIGTERM with exit code 0."""
    command = [sys.executable, "-m", "targets.simulated", name, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            ready = json.loads(line)
            assert ready["ready"] is True
            yield ready["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        assert errors == ""


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)


def post(url: str, path: str, body: object, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    connection = connect(url)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})
    return connection.getresponse()


def get(url: str, path: str) -> http.client.HTTPResponse:
    connection = connect(url)
    connection.request("GET", path)
    return connection.getresponse()


def events(response: http.client.HTTPResponse) -> list[dict]:
    """The JSON of each event; the stream must end with [DONE]."""
    data = [line[6:] for line in response.read().decode().split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(text) for text in data[:-1]]


def chat(words: int, limit: int, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "word " * words}]
    return {"model": "llama2-7b", "messages": messages, "max_tokens": limit, **more}
