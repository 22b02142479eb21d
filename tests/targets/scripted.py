"""A server that does exactly what a test tells it to: one function for each connection, plain blocking sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .wire_cases import DONE, HEAD, TWO, chunked

GOOD = chunked(TWO + DONE)
Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock, self.number = sock, number
        self.heard = b""

    def request(self) -> bytes:
        """The next request, whole; b"" where the client has closed."""
        while b"\r\n\r\n" not in self.heard:
            if not self._hear():
                return b""
        head = self.heard.partition(b"\r\n\r\n")[0]
        length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
        while len(self.heard) < len(head) + 4 + length:
            if not self._hear():
                return b""
        whole, self.heard = self.heard[: len(head) + 4 + length], self.heard[len(head) + 4 + length :]
        return whole

    def _hear(self) -> bytes:
        data = self.sock.recv(1 << 16)
        self.heard += data
        return data

    def say(self, data: bytes, pause: float = 0.0) -> None:
        self.sock.sendall(data)
        if pause:
            time.sleep(pause)

    def head(self) -> None:
        self.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Scripted:
    """Listens until closed; each connection runs `script` in a thread of its own and is closed when it returns."""

    def __init__(self, script: Script, family: int = socket.AF_INET, where: object = ("127.0.0.1", 0)) -> None:
        self.script, self.connections = script, 0
        self.context: ssl.SSLContext | None = None
        self.sock = socket.socket(family)
        self.sock.bind(where)  # type: ignore[arg-type]
        self.sock.listen(512)
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        scheme = "http" if self.context is None else "https"
        if self.sock.family == socket.AF_UNIX:
            return f"unix://{self.sock.getsockname()}"
        host, port = self.sock.getsockname()[:2]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.sock.accept()
                self.connections += 1
                threading.Thread(target=self._run, args=(sock, self.connections), daemon=True).start()

    def _run(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
            self.script(Peer(sock, number))
        sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self.sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                Path(self.sock.getsockname()).unlink()


def good(peer: Peer) -> None:
    """Answers every request well."""
    while peer.request():
        peer.say(GOOD)
