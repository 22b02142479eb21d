"""What servers send, and what must come of it: one table for the answer's whole way, from bytes to the exchange."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    outcome: str = "ok"
    events: int = 2  # token-bearing
    chars: int = 4
    closes: bool = False  # the server closes the connection after the bytes
    facts: dict[str, Any] = field(default_factory=dict)
    says: str = ""  # in the error


def token(text: str = "ab", **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], **more}, ensure_ascii=False)


def delta(**delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]}, ensure_ascii=False)


DONE = "data: [DONE]\n\n"
FINISH = 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n'
TWO = f"data: {token()}\n\ndata: {token()}\n\n"
PAGE = "<!DOCTYPE html><html><style>h1 {}</style><h1\n>502 Bad <!-- > -->Gateway</h1><p>nginx &amp; &lt;co&gt;"
NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def frame(body: bytes, size: str = "x") -> bytes:
    return (f"{len(body):{size}}\r\n").encode() + body + b"\r\n"


def chunked(text: str | bytes, head: bytes = HEAD) -> bytes:
    """The text as a chunked answer, an HTTP chunk for each event."""
    body = text.encode() if isinstance(text, str) else text
    pieces = [piece + b"\n\n" for piece in body.split(b"\n\n") if piece] if b"\r" not in body else [body]
    if not body.endswith(b"\n\n") and b"\r" not in body:
        pieces[-1] = pieces[-1][:-2]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(frame, pieces)) + b"0\r\n\r\n"


def sized(body: bytes, head: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def error(status: str, body: bytes = b'{"error": {"message": "no"}}', more: bytes = b"") -> bytes:
    return sized(body, f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n".encode() + more)


def lines(end: str) -> bytes:
    return chunked((TWO + DONE).replace("\n", end))


def whole(**more: Any) -> bytes:
    answer = {"choices": [{"message": {"content": "abcd"}, "finish_reason": "stop"}], **more}
    return sized(json.dumps(answer).encode(), b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n")


def packed(body: bytes, encoding: str) -> bytes:
    head = HEAD + f"Content-Encoding: {encoding}\r\n".encode()
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + frame(body[:20]) + frame(body[20:]) + b"0\r\n\r\n"


BODY = (TWO + DONE).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)

# fmt: off
CASES = [
    # Lines.
    Case("line feeds", chunked(TWO + DONE)),
    Case("carriage returns and line feeds", lines("\r\n")),
    Case("carriage returns", lines("\r")),
    Case("line ends mixed", chunked(f"data: {token()}\r\n\r\ndata: {token()}\r\rdata: [DONE]\n\r\n")),
    Case("no space after the colon", chunked((TWO + DONE).replace("data: ", "data:"))),
    Case("two spaces after the colon", chunked(TWO.replace("data: ", "data:  ") + DONE)),
    Case("a comment first", chunked(": welcome\n\n" + TWO + DONE)),
    Case("comments between", chunked(f"data: {token()}\n\n:\n\n: ping\n\ndata: {token()}\n\n{DONE}")),
    Case("a comment inside an event", chunked(f"data: {token()}\n: x\n\ndata: {token()}\n\n{DONE}")),
    Case("event fields", chunked(TWO.replace("data", "event: token\ndata") + DONE)),
    Case("an annotation of Dynamo's", chunked('event: queue\ndata: {"x": 1}\n\n' + TWO + DONE)),
    Case("id fields", chunked(TWO.replace("data", "id: 7\ndata") + DONE)),
    Case("retry field", chunked("retry: 1000\n\n" + TWO + DONE)),
    Case("unknown fields", chunked(TWO.replace("data", "x-y: 1\nnothing\ndata") + DONE)),
    Case("several data lines", chunked(TWO.replace(', "delta"', ',\ndata: "delta"') + DONE)),
    Case("a data line without a value", chunked(f"data\ndata: {token()}\n\ndata: {token()}\n\n" + DONE)),
    Case("empty events to keep alive", chunked("data:\n\ndata\n\ndata: \n\n" + TWO + DONE)),
    Case("many blank lines", chunked("\n\n\n" + TWO.replace("\n\n", "\n\n\n\n") + DONE)),
    Case("a byte order mark", chunked("\ufeff" + TWO + DONE)),
    Case("a byte order mark in mid-stream is no data field", chunked(TWO + f"\ufeffdata: {token()}\n\n" + DONE)),
    Case("data in capitals is no data field", chunked(TWO + f"DATA: {token()}\n\n" + DONE)),
    Case("an indented data field is none", chunked(TWO + f" data: {token()}\n\n" + DONE)),
    # Text.
    Case("a line separator", chunked(f"data: {token(chr(0x2028))}\n\n" + TWO + DONE), events=3, chars=5),
    Case("a paragraph separator", chunked(f"data: {token(chr(0x2029))}\n\n" + TWO + DONE), events=3, chars=5),
    Case("next line", chunked(f"data: {token(chr(0x85))}\n\n" + TWO + DONE), events=3, chars=5),
    Case("two bytes a character", chunked(f"data: {token('éü')}\n\n" * 3 + DONE), events=3, chars=6),
    Case("four bytes a character", chunked(f"data: {token('🙂')}\n\n" * 3 + DONE), events=3, chars=3),
    Case("quotes and backslashes", chunked(f"data: {token(chr(34) + chr(92))}\n\n" * 3 + DONE), events=3, chars=6),
    Case("escaped line breaks", chunked(f"data: {token(chr(10))}\n\n" * 3 + DONE), events=3, chars=3),
    Case("text that looks like a frame", chunked(f"data: {token('data: [DONE]')}\n\n" * 3 + DONE), events=3, chars=36),
    # The end.
    Case("the last blank line is missing", chunked(TWO + "data: [DONE]\n")),
    Case("the last line's end is missing", chunked(TWO + "data: [DONE]")),
    Case("[DONE] without a space", chunked(TWO + "data:[DONE]\n\n")),
    Case("no [DONE]", chunked(TWO), "truncated", says="terminator"),
    Case("a finish reason and no [DONE]", chunked(TWO + FINISH),
         facts={"finish_reason": "length", "unterminated": True}),
    Case("the same with usage behind", chunked(TWO + FINISH + 'data: {"usage": {"completion_tokens": 7}}'),
         facts={"usage_output": 7, "unterminated": True}),
    Case("the same by content-length", sized((TWO + FINISH).encode(), HEAD), facts={"unterminated": True}),
    Case("the same to the connection's end", HEAD + b"\r\n" + (TWO + FINISH).encode(), closes=True),
    Case("a finish reason and [DONE]", chunked(TWO + FINISH + DONE), facts={"unterminated": False}),
    Case("a finish reason, cut before the last chunk", chunked(TWO + FINISH)[:-5], "truncated", closes=True,
         says="mid-answer"),
    Case("cut in mid-event", chunked(TWO + DONE)[:-60], "truncated", 1, 2, closes=True, says="mid-answer"),
    Case("cut before the last chunk", chunked(TWO + DONE)[:-5], closes=True),
    Case("cut before [DONE]", chunked(TWO), "truncated", closes=True),
    Case("cut in the headers", HEAD[:30], "truncated", 0, 0, closes=True, says="before any answer"),
    Case("closed without a byte", b"", "truncated", 0, 0, closes=True, says="before any answer"),
    Case("more after [DONE]", chunked(TWO + DONE + TWO + 'data: {"usage": {"completion_tokens": 9}}\n\n'),
         facts={"usage_output": None}),
    Case("no token at all", chunked(f"data: {delta(role='assistant')}\n\n" + DONE), "malformed", 0, 0, says="no event"),
    # What carries a token.
    Case("role only", chunked(f"data: {delta(role='assistant', content='')}\n\n" + TWO + DONE)),
    Case("null content", chunked(f"data: {delta(role='assistant', content=None)}\n\n" + TWO + DONE)),
    Case("empty content in between", chunked(TWO + f"data: {token('')}\n\n" + TWO + DONE), events=4, chars=8),
    Case("reasoning_content", chunked(f"data: {delta(reasoning_content='hm')}\n\n" + TWO + DONE), events=3, chars=6),
    Case("reasoning", chunked(f"data: {delta(reasoning='hm')}\n\n" + TWO + DONE), events=3, chars=6),
    Case("refusal", chunked(f"data: {delta(refusal='no')}\n\n" + TWO + DONE), events=3, chars=6),
    Case(
        "tool calls",
        chunked(
            f"data: {delta(tool_calls=[{'index': 0, 'function': {'name': 'go', 'arguments': ''}}])}\n\n"
            f"data: {delta(tool_calls=[{'index': 0, 'function': {'arguments': '{}'}}])}\n\n" + DONE
        ),
    ),
    Case("completions", chunked('data: {"choices": [{"text": "ab"}]}\n\n' * 2 + DONE)),
    Case(
        "usage in a chunk of its own",
        chunked(TWO + 'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}\n\n' + DONE),
        facts={"usage_prompt": 9, "usage_output": 5},
    ),
    Case("usage null in every chunk", chunked(TWO.replace('{"choices', '{"usage": null, "choices') + DONE)),
    Case(
        "usage in every chunk: several tokens an event",
        chunked("".join(f"data: {token(usage={'completion_tokens': n})}\n\n" for n in (3, 5, 6)) + DONE),
        events=3,
        chars=6,
        facts={"first_tokens": 3, "usage_output": 6},
    ),
    Case("a finish reason", chunked(TWO + 'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n' + DONE),
         facts={"finish_reason": "length"}),
    Case("two choices in turns", chunked(TWO + TWO.replace('"index": 0', '"index": 1') + DONE), "malformed",
         says="several choices"),
    Case("two choices that texts tell apart", chunked(TWO + TWO.replace('"index": 0', '"index": "1"') + DONE),
         "malformed", says="several choices"),
    Case("two choices in a chunk", chunked('data: {"choices": [{"text": "ab"}, {"text": "cd"}]}\n\n'), "malformed",
         0, 0, says="several choices"),
    Case("two choices in a whole answer", whole(choices=[{"message": {"content": "ab"}}] * 2), "malformed", 0, 0,
         says="several choices"),
    # Failures inside a stream of status 200.
    Case("an error object", chunked(TWO + 'data: {"error": {"message": "KV lost"}}\n\n' + DONE), "http_error",
         says="KV lost"),
    Case("an error text", chunked(TWO + 'data: {"error": "gone"}\n\n' + DONE), "http_error", says="gone"),
    Case("an error event", chunked(TWO + 'event: error\ndata: {"message": "worker died"}\n\n'), "http_error",
         says="worker died"),
    Case("an error event in words", chunked(TWO + "event: error\ndata: engine died\n\n"), "http_error",
         says="engine died"),
    Case("a rate limit in the stream", chunked('data: {"error": {"message": "slow", "code": 429}}\n\n'), "rate_limited",
         0, 0),
    Case("broken JSON", chunked(TWO + 'data: {"choices": [\n\n' + DONE), "malformed", says="not JSON"),
    Case("JSON that is no object", chunked(TWO + "data: 17\n\n" + DONE), "malformed", says="object"),
    Case("broken UTF-8", chunked(TWO.encode() + b'data: {"x": "\xff"}\n\n'), "malformed"),
    Case("choices of the wrong type", chunked('data: {"choices": "ab"}\n\ndata: {"choices": [7]}\n\n' + TWO + DONE)),
    # HTTP.
    Case("content-length", sized(BODY, HEAD)),
    Case("the connection's end is the body's", HEAD.replace(b"1.1", b"1.0") + b"\r\n" + BODY, closes=True),
    Case("close announced", HEAD + b"Connection: close\r\n\r\n" + BODY, closes=True),
    Case("chunk sizes in capitals", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + frame(TWO.encode() * 2, "X")
         + frame(DONE.encode()) + b"0\r\n\r\n", events=4, chars=8),
    Case("chunk sizes with zeros", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + frame(TWO.encode(), "06x")
         + frame(DONE.encode()) + b"0\r\n\r\n"),
    Case("a chunk extension", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x;a=b\r\n" % len(BODY) + BODY
         + b"\r\n0\r\n\r\n"),
    Case("trailers", chunked(TWO + DONE)[:-2] + b"X-Sum: 1\r\n\r\n"),
    Case("events over chunk borders", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
         + b"".join(frame(BODY[i : i + 7]) for i in range(0, len(BODY), 7)) + b"0\r\n\r\n"),
    Case("no content-type", chunked(TWO + DONE, b"HTTP/1.1 200 OK\r\n")),
    Case("no reason phrase", chunked(TWO + DONE, b"HTTP/1.1 200\r\n")),
    Case("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + chunked(TWO + DONE), facts={"status": 200}),
    Case("103 first", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + chunked(TWO + DONE), facts={"status": 200}),
    Case("101", b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc", "malformed", 0, 0),
    Case("gzip", packed(gzip.compress(BODY), "gzip")),
    Case("deflate", packed(zlib.compress(BODY), "deflate")),
    Case("raw deflate", packed(RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush(), "deflate")),
    Case("gzip in members", packed(b"".join(gzip.compress(part) for part in BODY.splitlines(True)), "gzip")),
    Case("gzip in members, cut short", packed(gzip.compress(TWO.encode()) + gzip.compress(DONE.encode())[:-9], "gzip"),
         "truncated"),
    Case("gzip that isn't", packed(BODY, "gzip"), "malformed", 0, 0),
    Case("gzip cut short", packed(gzip.compress(BODY)[:-40], "gzip"), "truncated", 0, 0),
    Case("brotli, unasked", packed(BODY, "br"), "malformed", 0, 0, says="not asked for"),
    Case("redirect", error("307 Temporary Redirect", b"", b"Location: https://elsewhere/\r\n"), "http_error", 0, 0,
         facts={"status": 307}, says="redirects are not followed (to https://elsewhere/)"),
    Case("400", error("400 Bad Request", b'{"error": {"message": "max_tokens is too large"}}'), "http_error", 0, 0,
         says="400: max_tokens is too large"),
    Case("404 with text", error("404 Not Found", b"no such model"), "http_error", 0, 0, says="404: no such model"),
    Case("429", error("429 Too Many Requests", more=b"Retry-After: 2\r\n"), "rate_limited", 0, 0,
         facts={"retry_after": 2.0, "status": 429}),
    Case("498", error("498 Capacity"), "rate_limited", 0, 0),
    Case("529", error("529 Overloaded"), "rate_limited", 0, 0),
    Case("500 without a body", error("500 Internal Server Error", b""), "http_error", 0, 0, says="500"),
    Case("503 cut short", error("503 Unavailable", b"x" * 900)[:-100], "http_error", 0, 0, closes=True, says="503"),
    Case("200 that is a web page", sized(b"<html>log in", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"),
         "malformed", 0, 0, says="text/html"),
    Case("newline-delimited JSON", sized(b'{"response": "ab"}\n' * 2, NDJSON), "malformed", 0, 0,
         says="no token in an answer of type application/x-ndjson, not text/event-stream"),
    Case("an error's web page", chunked(PAGE, b"HTTP/1.1 502 Bad Gateway\r\n"), "http_error", 0, 0,
         says="502: 502 Bad Gateway nginx & <co>"),
    Case("an error's web page in JSON", error("500 No", json.dumps({"detail": PAGE}).encode()), "http_error", 0, 0,
         says="500: 502 Bad Gateway nginx & <co>"),
    Case("an error's events", error("500 No", b'event: error\ndata: {"message": "cold"}\n\ndata: [DONE]\n\n'),
         "http_error", 0, 0, says="500: cold"),
    Case("an error's events in words", error("500 No", b"data: all is\rlost\n\n"), "http_error", 0, 0,
         says="500: all is lost"),
    Case("no web page", error("400 No", b'{"message": "expected <int> at <body>"}'), "http_error", 0, 0,
         says="400: expected <int> at <body>"),
    Case("204", b"HTTP/1.1 204 No Content\r\n\r\n", "malformed", 0, 0, says="an empty answer (204)"),
    Case("a whole JSON answer", whole(usage={"completion_tokens": 4}), events=1,
         facts={"usage_output": 4, "first_tokens": 4, "finish_reason": "stop", "whole": True, "ttft": None,
                "ttft_from_due": None, "tpot": None}),
    Case("a whole JSON answer without usage", whole(), events=1, facts={"first_tokens": 1}),
    Case("a JSON error of status 200", whole(error={"message": "cold"}), "http_error", 0, 0, says="cold"),
    Case("a broken JSON answer", sized(b"{", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "malformed", 0,
         0),
    Case("headers given twice", chunked(TWO + DONE, HEAD + b"X-Request-Id: r1\r\nVary: a\r\nVary: b\r\n"),
         facts={"request_id": "r1"}),
    Case("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", "malformed", 0, 0, says="not HTTP"),
    Case("length and chunks at once", HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed", 0,
         0),
    Case("a chunk size that is none", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed", 0, 0),
    Case("endless headers", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, "malformed", 0, 0, says="bytes of headers"),
]
# fmt: on
