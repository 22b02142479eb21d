"""What a server sends, taken with care: a value of the right type and a bounded size, or None.

Wire formats read an answer through these only, so that a hostile or broken server can make a fact absent but never
raise, fill the memory or put a string where a number belongs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any

import orjson

from ..exchange import Exchange, Outcome
from .interface import Json, WireError

NAME_LIMIT = 200  # characters of an id or a name
MESSAGE_LIMIT = 500  # characters of an error message
PAGE_LIMIT = 16 << 10  # of a web page in its place
PAGE = re.compile(r"<!doctype html|<html\b|<br\b|</(?:title|body|center|h[1-6]|div|p|pre|[abiu]|em|strong|code)>", re.I)
TAGS = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1>|\Z)|</?[a-z!][^<>]*>", re.IGNORECASE | re.DOTALL)
EVENT = re.compile(rb"^data: *(\S.*)$", re.MULTILINE)  # a line of a server-sent event's data
COUNT_LIMIT = 1 << 31
SECONDS_LIMIT = 1e7  # four months: what is larger is not a duration
PARTS = ("text", "thinking")  # what a part of a text is called
CODES = ("code", "type", "error_type")  # an error's machine-readable names
RATE_LIMIT_CODES = ("rate_limit", "429", "498", "529", "capacity_exceeded", "overloaded")  # what is in them

# An answer's headers, in lower case. Rate limits (Groq, OpenAI, Azure: `x-ratelimit-...`; Anthropic:
# `anthropic-ratelimit-...`) are kept as the vendor wrote them.
REQUEST_IDS = ("x-request-id", "request-id", "x-groq-request-id", "apim-request-id")
REGIONS = ("x-groq-region", "x-ms-region", "x-region", "cf-ray")
RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit-")
LIMITS = ("x-ratelimit-limit-{}", "anthropic-ratelimit-{}-limit")
KEPT = 16  # rate-limit headers of one answer


def note(exchange: Exchange, **facts: Any) -> None:
    """Puts facts onto the exchange; a missing one (None) leaves what an earlier event gave."""
    for name, value in facts.items():
        if value is not None:
            setattr(exchange, name, value)


def load(event: bytes | bytearray | memoryview) -> Json:
    """The JSON object of an event. Raises WireError where there is none."""
    try:
        value = orjson.loads(event)
    except orjson.JSONDecodeError as error:
        raise WireError(f"not JSON: {error}: {quote(bytes(event[:80]))}") from None
    if not isinstance(value, dict):
        raise WireError(f"expected a JSON object, got {type(value).__name__}: {quote(bytes(event[:80]))}")
    return value


def sound(event: bytes | memoryview) -> Json:
    """The same, of an event or an answer that reports no failure: else raises WireError with what it reports."""
    data = load(event)
    if data.get("error"):
        raise failure(data)
    return data


def mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[Json]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def only_choice(choices: list[Json]) -> Json:
    """The choice of a chunk or an answer, if it has one. WireError where there are several: read as one text they would
    halve TPOT, and the server's count is of the tokens of all of them."""
    index = choices[0].get("index") if choices else None
    if len(choices) > 1 or count(index) or (isinstance(index, str) and index.strip("0")):
        raise WireError("an answer of several choices: only one can be measured (n = 1)")
    return choices[0] if choices else {}


def text(value: object, depth: int = 2) -> str:
    """Generated text: a string, or a list of parts that have one (or such a list) each; else empty."""
    if isinstance(value, str):
        return value
    if not depth or not isinstance(value, list):
        return ""
    return "".join(text(part.get(key), depth - 1) for part in mappings(value) for key in PARTS)


def name(value: object) -> str | None:
    """An id or a name, one bounded line of printable characters. Numbers (Dynamo's worker ids) become text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return line(value, NAME_LIMIT) or None if isinstance(value, str) else None


def count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < COUNT_LIMIT and value == int(value) else None


def total(value: object) -> int | None:
    """A count of the tokens given. 0 counts as none: where tokens came it is wrong, else none are counted anyway."""
    return count(value) or None


def seconds(value: object, unit: float = 1.0) -> float | None:
    """A duration given in units of `unit` seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    duration = value * unit
    return duration if 0 <= duration < SECONDS_LIMIT else None


def line(value: str, limit: int = MESSAGE_LIMIT) -> str:
    """One bounded line: control characters and runs of space become one space."""
    if len(value) <= limit and value.isprintable() and "  " not in value and value.strip() == value:
        return value  # as nearly all are
    printable = "".join(c if c.isprintable() else " " for c in value[: 4 * limit])
    joined = " ".join(printable.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def quote(body: bytes) -> str:
    return plain(EVENT.sub(rb"\1", body[:PAGE_LIMIT]).decode("utf-8", "replace"))


def plain(value: str) -> str:
    """One bounded line of a text that may be a web page: without its tags, scripts and styles."""
    value = value[:PAGE_LIMIT]
    return line(unescape(TAGS.sub(" ", value)) if PAGE.search(value) else value)


def complaint(value: object) -> str:
    """One line from an error of any shape: {"error": {"message"}}, {"error": "..."}, {"message"}, {"detail"}, text."""
    if isinstance(value, dict):
        for key in ("error", "message", "detail", "error_message"):
            if value.get(key):
                return complaint(value[key])
    if isinstance(value, list) and value:
        detail = mapping(value[0])
        return complaint(f"{_field(detail)}{detail['msg']}" if "msg" in detail else value[0])
    return plain(value if isinstance(value, str) else str(value)[:MESSAGE_LIMIT])


def _field(detail: Json) -> str:
    """Which field a FastAPI server complains about: {"loc": ["body", "stream_options"], "msg": ...}."""
    place = detail.get("loc")
    names = [str(part)[:NAME_LIMIT] for part in place[:9] if part != "body"] if isinstance(place, list) else []
    return ".".join(names) + ": " if names else ""


def complaint_in(body: bytes) -> str:
    """The same from an error answer's body: JSON, as the first of a stream's events too, or a page, or text."""
    event = EVENT.search(body)
    body = event[1] if event else body
    try:
        return complaint(orjson.loads(body))
    except orjson.JSONDecodeError:
        return quote(body) or "empty answer"


def failure(data: Json) -> WireError:
    """A failure that the server reports inside a stream or an answer of status 200."""
    error = mapping(data.get("error")) or data
    code = " ".join(str(error[key])[:NAME_LIMIT] for key in CODES if error.get(key)).lower()
    limited = any(known in code for known in RATE_LIMIT_CODES)
    return WireError(complaint(data), Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR)


# Facts that ride in an answer's headers, whatever its status.


def note_headers(headers: Mapping[str, str], exchange: Exchange, received: float | None = None) -> None:
    """Puts the headers' facts onto the exchange; `received`, in seconds since the epoch, is when they came."""
    exchange.request_id = _one_of(REQUEST_IDS, headers) or exchange.request_id
    exchange.region = _one_of(REGIONS, headers) or exchange.region
    exchange.retry_after = retry_after(headers, received)
    if kept := {key: line(value, 64) for key, value in headers.items() if key.startswith(RATE_LIMITS)}:
        exchange.ratelimit = orjson.dumps(dict(sorted(kept.items())[:KEPT])).decode()


def _one_of(names: tuple[str, ...], headers: Mapping[str, str]) -> str | None:
    return next((name(headers[header]) for header in names if headers.get(header)), None)


def retry_after(headers: Mapping[str, str], received: float | None = None) -> float | None:
    """Seconds to wait, given as a number or as a date. A date is measured from the answer's own `date`, whose clock set
    it, and where there is none from when the answer came."""
    try:
        if "retry-after-ms" in headers:
            return seconds(float(headers["retry-after-ms"]), 1e-3)
        value = headers["retry-after"].strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return seconds(float(value))
        date = headers.get("date")
        now = parsedate_to_datetime(date) if date else datetime.fromtimestamp(received, UTC)  # type: ignore[arg-type]
        wait = parsedate_to_datetime(value) - now
        return seconds(max(0.0, wait.total_seconds()))
    except (KeyError, ValueError, TypeError):
        return None


def rate_limits(headers: Mapping[str, str]) -> dict[str, int]:
    """The limits that an answer names: {"requests": 14400, "tokens": 18000, ...}; how long a period each one counts
    for is the vendor's: a minute, but for Groq's requests, which are counted by the day."""
    kinds = ("requests", "tokens", "input-tokens", "output-tokens")
    named = [(kind, headers.get(form.format(kind), "")) for kind in kinds for form in LIMITS]
    return {kind: int(value) for kind, value in named if re.fullmatch(r"[0-9]{1,15}", value)}
