"""Server-sent events: bytes in, events out. Sans-I/O.

Theory of operation. Everything stays bytes: a line ends at \\n, \\r\\n or \\r only (never at U+2028, which is legal
inside JSON), and a character split over two feeds needs no care. Carriage returns are turned into \\n as they come; a
feed that ends with \\r has ended a line, and a \\n that begins the next one is then dropped. An event of n bytes costs
O(n) however finely it is cut, and what waits is bounded: its bytes, and what Python needs to keep each line.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Interpreting an event stream".
"""

from __future__ import annotations

EVENT_LIMIT = 8 << 20  # bytes of one event, not yet complete
NAME_LIMIT = 64
KEPT = 64  # bytes that a line costs beside its own
BOM = b"\xef\xbb\xbf"

Event = tuple[bytes, str]  # its data, and its name: "" where it has no `event:` field


class SseError(Exception):
    """An event beyond the limit."""


class Decoder:
    """Decodes one stream. `feed` gives the events that became complete; `finish` what a clean end completes."""

    __slots__ = ("_after_cr", "_data", "_held", "_name", "_rest", "_start")

    def __init__(self) -> None:
        self._rest = bytearray()  # the unfinished line
        self._data: list[bytes] = []  # data lines of the unfinished event
        self._held = 0  # bytes that they cost
        self._name = ""
        self._after_cr = False
        self._start = True

    @property
    def empty(self) -> bool:
        """Between two events: nothing waits, and the next byte begins a line."""
        return not (self._data or self._rest or self._name or self._after_cr or self._start)

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
            self._rest += data
            self._bound()
            return []
        if self._rest:
            data = bytes(self._rest) + data
            self._rest.clear()
        lines = data.split(b"\n")
        self._rest += lines.pop()
        events = self._lines(lines)
        self._bound()
        return events

    def finish(self) -> list[Event]:
        """The event that lacks only its blank line, or even its line's end, where the stream ended cleanly."""
        return self.feed(b"\n\n") if self._data or self._rest else []

    def _bound(self) -> None:
        if self._held + len(self._rest) > EVENT_LIMIT:
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
                    self._data, self._held = [], 0
                self._name = ""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                self._held += len(line) + KEPT
            elif line.startswith(b"event:"):
                self._name = line[6 : 6 + NAME_LIMIT].decode("utf-8", "replace").strip()
            elif line == b"data":
                self._data.append(b"")
                self._held += KEPT
            # Anything else is a comment, an id, a retry time, or a field that nobody knows.
        return events
