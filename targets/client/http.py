"""HTTP/1.1 answers: bytes in, facts and body out. Framing is llhttp's (httptools); this keeps what it finds, bounded.

One `Response` reads one answer; 1xx answers before it are passed over. Sans-I/O.
"""

from __future__ import annotations

import zlib

import httptools

HEAD_LIMIT = 64 << 10  # bytes of all headers, trailers included
# Decompressed bytes, of one feed and of an answer: no request asks for compression, and a bomb ends the exchange.
INFLATE_LIMIT, INFLATED_LIMIT = 4 << 20, 64 << 20
GZIP, ZLIB, RAW = 31, 15, -15  # zlib's window bits
ENCODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": 0}  # 0: seen from its first two bytes


class HttpError(Exception):
    """An answer that is not HTTP/1.x as we can read it."""


class Response:
    """The answer to one request, as it comes in."""

    __slots__ = (
        "_body", "_head_size", "_held", "_inflate", "_inflated", "_informational", "_parser", "at_chunk", "complete",
        "excess", "headers", "headers_done", "keep_alive", "plain", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._inflate: zlib._Decompress | None = None
        self._inflated = 0
        self._held = b""  # of a deflate body whose kind is not yet known
        self.plain = True  # the body isn't compressed
        self._head_size = 0
        self._informational = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.headers_done = False
        self.keep_alive = False
        self.complete = False
        self.excess = False  # bytes came after the end
        self.at_chunk = False  # the last thing seen was the end of a chunk

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`, decompressed. Raises HttpError."""
        if not self.headers_done:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                raise HttpError(f"more than {HEAD_LIMIT} bytes of headers")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise HttpError("the server switched protocols (101)") from None
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            if not self.complete:
                raise HttpError(f"not HTTP/1.1: {error or type(error).__name__}") from None
            self.excess = True
        if not self._body:
            return b""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        return body if self.plain else self._decompress(body)

    def end(self) -> bool:
        """The connection was closed: is the answer whole? Only where its end is the connection's end."""
        delimited = "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "").lower()
        return self.complete or (self.headers_done and not delimited)

    @property
    def whole(self) -> bool:
        """Did a compressed body come to its own end?"""
        return self.plain or (self._inflate is not None and self._inflate.eof)

    def _decompress(self, body: bytes) -> bytes:
        if self._inflate is None:  # some servers send a raw stream under the name of deflate, some a zlib one
            self._held += body
            if len(self._held) < 2:
                return b""
            body, self._held = self._held, b""
            zlibs = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
            self._inflate = zlib.decompressobj(ZLIB if zlibs else RAW)
        try:
            out = self._members(self._inflate, body)
        except zlib.error as error:
            raise HttpError(f"broken {self.headers['content-encoding'][:40]} body: {error}") from None
        self._inflated += len(out)
        if self._inflated > INFLATED_LIMIT:
            raise HttpError(f"a compressed body of more than {INFLATED_LIMIT} bytes")
        return out

    def _members(self, inflate: zlib._Decompress, body: bytes) -> bytes:
        """Gzip's data may be several members, one after the other; other bodies have one."""
        out = b""
        several = ENCODINGS.get(self.headers["content-encoding"].strip().lower()) == GZIP
        while body:
            if inflate.eof:
                if not several:
                    break
                inflate = self._inflate = zlib.decompressobj(GZIP)
            out += inflate.decompress(body, INFLATE_LIMIT - len(out))
            if inflate.unconsumed_tail or len(out) >= INFLATE_LIMIT:
                raise HttpError(f"more than {INFLATE_LIMIT} bytes from one compressed read")
            body = inflate.unused_data
        return out

    def close(self) -> None:
        """Breaks the cycle with the parser, so that no collector is needed."""
        self._parser = None

    # llhttp's callbacks.

    def on_message_begin(self) -> None:
        self.excess = self.excess or self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headers_done:  # a trailer: nothing of ours is in it
            self._head_size += len(name) + len(value)
            if self._head_size > 2 * HEAD_LIMIT:
                raise HttpError("endless trailers")
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete:
            return
        self._informational = status < 200 and status != 101
        if self._informational:
            self.headers = {}
            return
        self.status, self.headers_done = status, True
        self.keep_alive = self._parser.should_keep_alive()
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding in ENCODINGS:
            self.plain = False
            self._inflate = zlib.decompressobj(ENCODINGS[encoding]) if ENCODINGS[encoding] else None
        elif encoding not in ("", "identity"):
            raise HttpError(f"a body in {encoding[:40]!r}, which was not asked for")

    def on_body(self, body: bytes) -> None:
        self.at_chunk = False
        if not self.complete:
            self._body.append(body)

    def on_chunk_header(self) -> None:
        self.at_chunk = False

    def on_chunk_complete(self) -> None:
        self.at_chunk = True

    def on_message_complete(self) -> None:
        if not self._informational:
            self.complete = True
            self.at_chunk = False
        self._informational = False
