"""Server-sent events: bytes in, events out. Sans-I/O.

Theory of operation. Everything stays bytes: a line ends at \\n, \\r\\n or \\r only (never at U+2028, which is legal
inside JSON), and a character split over two feeds needs no care. Carriage returns are turned into \\n as they come; a
feed that ends with \\r has ended a line, and a \\n that begins the next one is then dropped. Unfinished lines wait as
pieces, so an event of n bytes costs O(n) however finely it is cut, and what waits is bounded.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Interpreting an event stream".
"""

from __future__ import annotations

EVENT_LIMIT = 8 << 20  # bytes of one event, not yet complete
NAME_LIMIT = 64
BOM = b"\xef\xbb\xbf"

Event = tuple[bytes, str]  # its data, and its name: "" where it has no `event:` field


class SseError(Exception):
    """An event beyond the limit."""


class Decoder:
    """Decodes one stream. `feed` gives the events that became complete; `finish` what a clean end completes."""

    __slots__ = ("_after_cr", "_data", "_name", "_pieces", "_start", "_waiting")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the unfinished line
        self._data: list[bytes] = []  # data lines of the unfinished event
        self._name = ""
        self._waiting = 0  # bytes in the two lists, and one for each line
        self._after_cr = False
        self._start = True

    @property
    def empty(self) -> bool:
        """Between two events: nothing waits, and the next byte begins a line."""
        return not (self._waiting or self._name or self._after_cr or self._start)

    def feed(self, data: bytes) -> list[Event]:
        """The events completed by `data`. Raises SseError where more waits than EVENT_LIMIT."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._wait(self._pieces, data)
            return []
        if self._pieces:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces = []
        lines = data.split(b"\n")
        rest = lines.pop()
        events = self._lines(lines)
        self._waiting = sum(map(len, self._data)) + len(self._data)
        self._wait(self._pieces, rest)
        return events

    def finish(self) -> list[Event]:
        """The event that lacks only its blank line, or even its line's end, where the stream ended cleanly."""
        return self.feed(b"\n\n") if self._waiting else []

    def _wait(self, where: list[bytes], piece: bytes) -> None:
        if not piece:
            return
        where.append(piece)
        self._waiting += len(piece) + 1
        if self._waiting > EVENT_LIMIT:
            raise SseError(f"an event longer than {EVENT_LIMIT} bytes")

    def _lines(self, lines: list[bytes]) -> list[Event]:
        events = []
        if self._start:
            self._start = False
            lines[0] = lines[0].removeprefix(BOM)
        for line in lines:
            if not line:
                if self._data:
                    events.append((b"\n".join(self._data), self._name))
                    self._data = []
                self._name = ""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6 : 6 + NAME_LIMIT].decode("utf-8", "replace").strip()
            elif line == b"data":
                self._data.append(b"")
            # Anything else is a comment, an id, a retry time, or a field that nobody knows.
        return events
