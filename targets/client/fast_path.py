"""Chunks like the one before: what a stream under way costs when nothing in it is new. Sans-I/O.

Theory of operation. Once a stream is under way, a read is nearly always one HTTP chunk that holds one event, equal to
the one before but for the text of its token. A `Frame` is that event cut at its text: what comes before and what comes
after. A read that is exactly SIZE CRLF before TEXT after CRLF, with the size that fits and a text without quotes,
backslashes and control characters, has the same effect as its full parse: one token more and its characters. So has a
read of several such chunks, once the client is behind: to fall behind must not make each chunk dearer.

Why that is exact. JSON is context-free: another plain text between the same quotes changes that one string and nothing
else. `learn` proves with the wire format's own reader that this string is counted by its length alone and that the
event leaves the reader as it found it. The framing is exact because a whole chunk leaves an HTTP parser, and a whole
event an SSE decoder, in the state before it. Whatever doesn't fit goes the whole way (answer.py), and after that one
full parse of a fitting event comes first, so that facts are in the order of the stream. A hypothesis test holds the two
ways equal.
"""

from __future__ import annotations

import re
from dataclasses import fields
from operator import attrgetter
from typing import Any

from traces.request import Request

from ..exchange import Call, Exchange
from ..wire import Reader, WireError
from .sse import Decoder

SIZE_LIMIT = 1 << 14  # longer chunks are parsed
END = b"\n\r\n"  # of a chunk that ends with an event
PLAIN = rb"[ !#-\[\]-~\x80-\xff]+"
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning)": ?"(' + PLAIN + rb')"')
PROBES = (b"q", "één, två".encode())
NO_CALL = Call(request=Request(0, 0, 0, 0), target="", due=0)
_facts = attrgetter(*(field.name for field in fields(Exchange) if field.name != "chars"))


def head(length: int, upper: bool) -> bytes:
    """The size line of the chunk that is `length` bytes long, all in all; b"" where none has that length."""
    for digits in range(1, 5):
        size = length - digits - 4
        if size > 0 and len(f"{size:x}") == digits:
            return (b"%X\r\n" if upper else b"%x\r\n") % size
    return b""


class Frame:
    """An event cut at its text, for one stream."""

    __slots__ = ("_after", "_before", "_heads", "_upper")

    def __init__(self, before: bytes, after: bytes, upper: bool) -> None:
        self._before, self._after, self._upper = before, after + b"\r\n", upper
        self._heads: dict[int, bytes] = {}

    def characters(self, data: bytes) -> int:
        """Characters of the token's text where `data` is exactly one chunk of this frame; 0 where it is not."""
        length = len(data)
        start = self._heads.get(length)
        if start is None:
            start = self._learn_head(length)
        if not (data.startswith(start) and data.endswith(self._after)):
            return 0
        try:
            text = data[len(start) : length - len(self._after)].decode()
        except UnicodeDecodeError:
            return 0
        return len(text) if text.isprintable() and '"' not in text and "\\" not in text else 0

    def tokens(self, data: bytes) -> tuple[int, int]:
        """Tokens and characters where `data` is several whole chunks of this frame, one after the other; else 0."""
        *chunks, rest = data.split(self._after)
        if rest:
            return 0, 0
        characters = [self.characters(chunk + self._after) for chunk in chunks]
        return (len(characters), sum(characters)) if all(characters) else (0, 0)

    def _learn_head(self, length: int) -> bytes:
        size = head(length, self._upper) if length < SIZE_LIMIT else b""
        # No chunk begins with a line break: what no chunk's length is, or leaves no room for a text, fits nothing.
        fits = size and len(size) + len(self._before) + len(self._after) < length
        start = self._heads[length] = size + self._before if fits else b"\n"
        return start


def learn(data: bytes, reader: type[Reader]) -> Frame | None:
    """The frame of a read whose last chunk has one token-bearing event; None where it isn't safe to have one."""
    data = data[:-3].rpartition(END)[2] + data[-3:]
    for upper in (False, True):
        size = head(len(data), upper)
        if size and data.startswith(size) and data.endswith(b"\r\n") and len(data) < SIZE_LIMIT:
            event = data[len(size) : -2]
            for match in _TEXT.finditer(event):
                before, after = event[: match.start(1)], event[match.end(1) :]
                if _proven(before, match[1], after, reader()):
                    return Frame(before, after, upper)
            return None
    return None


def _proven(before: bytes, text: bytes, after: bytes, reader: Reader) -> bool:
    """Does a reader that has read the event count any other text there as one token and its characters, no more?"""
    exchange, decoder = Exchange(NO_CALL), Decoder()
    decoder.feed(b"\n")  # in mid-stream, where a byte order mark is none
    states: list[Any] = []
    for probe in (text, *PROBES):
        exchange.chars = 0
        try:
            counts = [reader.feed(event, name, exchange) for event, name in decoder.feed(before + probe + after)]
            if counts != [1] or exchange.chars != len(probe.decode()) or not decoder.empty:
                return False
        except (WireError, UnicodeDecodeError):
            return False
        states.append((dict(vars(reader)), _facts(exchange)))
    return all(state == states[0] for state in states)
