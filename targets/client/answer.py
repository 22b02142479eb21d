"""One answer as it comes in: bytes and their instants in, facts onto the exchange, and how it ended. Sans-I/O.

HTTP framing (http.py), then events (sse.py), then the wire format's reader; or, for a chunk like the one before, none
of them (fast_path.py). Instants are nanoseconds since the epoch here, and from the run's start on the exchange.
"""

from __future__ import annotations

from collections.abc import Callable

from traces.trace import NS_PER_S

from ..exchange import Exchange, Outcome
from ..secrets import masked
from ..wire import RATE_LIMIT_STATUSES, Reader, WireError, lenient
from .fast_path import Frame, learn
from .http import HttpError, Response
from .sse import Decoder, Event, SseError

ANSWER_LIMIT = 16 << 20  # bytes of a JSON answer
ERROR_LIMIT = 64 << 10  # bytes kept of an error's body
EVENT_COUNT_LIMIT = 1_000_000  # token-bearing events of one exchange
EVENT_STREAM, JSON = "text/event-stream", "application/json"
LESSONS = 8  # frames that one answer may try to learn

End = tuple[Outcome, str, int]  # how it ended, what was wrong, and when


class Answer:
    """Reads the answer to one exchange. `feed` and `closed` give its End once it is over."""

    __slots__ = (
        "_body", "_decoder", "_enough", "_exchange", "_frame", "_in_step", "_lessons", "_note_at", "_note_events",
        "_reader", "_receive", "_response", "_size", "fast", "finished_at", "first_after", "last_after", "origin",
        "tokens",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, reader: Reader, origin: int) -> None:
        self._exchange, self._reader, self.origin = exchange, reader, origin
        self._enough = EVENT_COUNT_LIMIT if exchange.call.leave_after is None else exchange.call.leave_after
        self._response, self._decoder = Response(), Decoder()
        self._receive: Callable[[bytes, int, int], End | None] | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._note_at, self._note_events = exchange.token_at.append, exchange.token_events.append
        self._frame: Frame | None = None
        self._in_step = False  # the last read was parsed in full and fitted the frame, or went by it
        self._lessons = LESSONS if exchange.text is None else 0
        self.fast = 0  # reads that went by the frame
        self.tokens = 0  # token-bearing events so far
        self.finished_at: int | None = None  # when the terminator came
        self.first_after = self.last_after = 0

    @property
    def reusable(self) -> bool:
        """Is the connection free for another request?"""
        response = self._response
        return response.complete and response.keep_alive and not response.excess

    @property
    def _kind(self) -> str:
        """The content type, bounded."""
        return lenient.line(self._response.headers.get("content-type", "").partition(";")[0].strip().lower(), 100)

    @property
    def failing(self) -> bool:
        """An error's answer is under way: its status is known, its body may not be whole."""
        return self._receive == self._collect_error

    def quick(self, data: bytes, stamp: int, before: int) -> int:
        """Takes what `feed` would, if it is tokens like the one before and nothing follows from them: how many?"""
        if not self._in_step:
            return 0
        count, characters = 1, self._frame.characters(data)  # type: ignore[union-attr]
        if not characters:
            count, characters = self._frame.tokens(data)  # type: ignore[union-attr]
        if not characters or self.tokens + count >= self._enough:
            return 0
        self._exchange.chars += characters
        self.fast += 1
        self.tokens += count
        self.last_after = before
        self._note_at(stamp - self.origin)
        self._note_events(count)
        return count

    def together(self, stamp: int) -> None:
        """The tokens of the last read came in one piece, so that its instant is theirs: none was there before."""
        self.last_after = stamp
        if len(self._exchange.token_at) == 1:
            self.first_after = stamp

    def feed(self, data: bytes, stamp: int, before: int) -> End | None:
        """Takes what one read brought at `stamp`; the loop had last polled at `before`, when it wasn't there yet."""
        exchange, response, tokens = self._exchange, self._response, self.tokens
        self._in_step = False
        try:
            body = response.feed(data)
            if exchange.status is None and response.headers_done:
                self._head(stamp)
            if body and self._receive is not None and (end := self._receive(body, stamp, before)) is not None:
                return end
        except (HttpError, SseError) as error:
            return Outcome.MALFORMED, str(error), stamp
        except WireError as error:
            return error.outcome, str(error), stamp
        if self.tokens >= self._enough:
            return self._leave(stamp)
        if response.complete:
            return self._complete(stamp, before)
        if self.tokens > tokens and self.finished_at is None:
            self._consider(data)
        return None

    def _consider(self, data: bytes) -> None:
        """The read brought tokens: may the next ones go by their frame?"""
        response = self._response
        # A line break can't be inside a size line that isn't complete, so the parser is exactly between two chunks.
        if not (response.at_chunk and response.plain and self._decoder.empty and data.endswith(b"\n")):
            return
        if self._frame is not None and self._frame.tokens(data)[0]:
            self._in_step = True
        elif self._lessons:
            self._lessons -= 1
            self._frame = learn(data, type(self._reader))
            self._in_step = self._frame is not None

    def _head(self, stamp: int) -> None:
        """The headers are there: which kind of answer is it?"""
        exchange, response = self._exchange, self._response
        exchange.status, exchange.headers_at = response.status, stamp - self.origin
        lenient.note_headers(response.headers, exchange, stamp / NS_PER_S)
        kind = self._kind
        if not 200 <= response.status < 300:
            self._receive = self._collect_error
        elif kind == JSON:
            self._receive = self._collect_answer
        elif kind in ("text/html", "application/xhtml+xml"):
            raise HttpError(f"an answer of type {kind}: not an endpoint's")
        else:
            self._receive = self._stream

    def _stream(self, body: bytes, stamp: int, before: int) -> None:
        self._events(self._decoder.feed(body), stamp, before)

    def _events(self, events: list[Event], stamp: int, before: int) -> None:
        bearing = 0
        try:
            for event, name in events:
                if not event:  # some servers send these to keep the connection alive
                    continue
                if self.finished_at is not None:  # nothing counts after the terminator
                    break
                if count := self._count(event, name):
                    if not (self.tokens or bearing):
                        self._exchange.first_tokens = count
                    bearing += 1
                if self._reader.finished:
                    self.finished_at = stamp - self.origin
        finally:
            if bearing:
                self._note_tokens(bearing, stamp, before)

    def _count(self, event: bytes | memoryview, name: str) -> int:
        """The event's tokens. An `event: error` holds the server's complaint, whatever its form."""
        try:
            return self._reader.feed(event, name, self._exchange)
        except WireError as error:
            if name == "error" and error.outcome is Outcome.MALFORMED:
                raise WireError(lenient.complaint_in(bytes(event)), Outcome.HTTP_ERROR) from None
            raise

    def _note_tokens(self, bearing: int, stamp: int, before: int) -> None:
        if not self.tokens:
            self.first_after = max(before, self.origin + (self._exchange.sent or 0))
        self.last_after = before
        self.tokens += bearing
        self._note_at(stamp - self.origin)
        self._note_events(bearing)

    def _collect_answer(self, body: bytes, stamp: int, before: int) -> None:
        self._size += len(body)
        if self._size > ANSWER_LIMIT:
            raise HttpError(f"an answer longer than {ANSWER_LIMIT} bytes")
        self._body.append(body)

    def _collect_error(self, body: bytes, stamp: int, before: int) -> End | None:
        self._size += len(body)
        self._body.append(body)
        return self.failure(stamp) if self._size > ERROR_LIMIT else None

    def _complete(self, stamp: int, before: int) -> End:
        """The answer's last byte is there."""
        exchange = self._exchange
        try:
            if self.failing:
                return self.failure(stamp)
            if exchange.status == 204:
                return Outcome.MALFORMED, "an empty answer (204)", stamp
            if not self._response.whole:
                return Outcome.TRUNCATED, "the compressed body ended before its end", stamp
            if self._receive == self._collect_answer:
                exchange.whole = True
                if count := self._reader.answer(b"".join(self._body), exchange):
                    exchange.first_tokens = count
                    self._note_tokens(1, stamp, before)
            else:
                self._events(self._decoder.finish(), stamp, before)
        except (SseError, WireError) as error:
            return getattr(error, "outcome", Outcome.MALFORMED), str(error), stamp
        if not self.tokens and self._kind not in (EVENT_STREAM, JSON):
            problem = f"no token in an answer of type {self._kind or 'unknown'}, not {EVENT_STREAM}"
            return Outcome.MALFORMED, problem, stamp
        if not (self._reader.finished or self._reader.open_ended):
            return Outcome.TRUNCATED, "the stream ended before its terminator", stamp
        exchange.unterminated = not (self._reader.finished or type(self._reader).open_ended)
        return self.finish(stamp)

    def finish(self, stamp: int) -> End:
        """The terminator was seen, and nothing more is waited for."""
        if not self.tokens:
            return Outcome.MALFORMED, "no event of the answer carried a token", stamp
        if self.finished_at is None:
            return Outcome.OK, "", stamp
        if stamp > self.finished_at + self.origin:
            self._exchange.body_end = stamp - self.origin
        return Outcome.OK, "", self.finished_at + self.origin

    def failure(self, stamp: int) -> End:
        """An error's answer, as far as it came."""
        response, status = self._response, self._response.status
        if 300 <= status < 400:
            to = masked(lenient.line(response.headers.get("location", "nowhere"), 200))
            return Outcome.HTTP_ERROR, f"{status}: redirects are not followed (to {to})", stamp
        complaint = lenient.complaint_in(b"".join(self._body)[:ERROR_LIMIT])
        outcome = Outcome.RATE_LIMITED if status in RATE_LIMIT_STATUSES else Outcome.HTTP_ERROR
        return outcome, f"{status}: {complaint}", stamp

    def _leave(self, stamp: int) -> End:
        if self._enough == EVENT_COUNT_LIMIT:
            return Outcome.MALFORMED, f"more than {EVENT_COUNT_LIMIT} events with tokens", stamp
        return Outcome.CANCELLED, f"the user left after {self.tokens} events", stamp

    def closed(self, why: str, stamp: int, before: int) -> End:
        """The connection is at its end."""
        if self._reader.finished:
            return self.finish(stamp)
        if self._response.end() and why == "closed":
            return self._complete(stamp, before)
        if self.failing:
            return self.failure(stamp)
        stage = "in mid-answer" if self._response.status else "before any answer"
        return Outcome.TRUNCATED, f"connection {why} {stage}", stamp

    def close(self) -> None:
        """Takes no more, and breaks its cycles: the garbage collector need not come for them."""
        self._in_step = False
        self._receive = None
        self._response.close()
