"""Facts that ride in an answer's headers, whatever its status: request id, region, rate limits, retry-after.

Names are lower case. Rate-limit headers (Groq, OpenAI, Azure: `x-ratelimit-...`; Anthropic: `anthropic-ratelimit-...`)
are kept as the vendor wrote them; `limits` reads those that a trace's worst minute is compared with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from ..exchange import Exchange
from . import lenient

REQUEST_IDS = ("x-request-id", "request-id", "x-groq-request-id", "apim-request-id")
REGIONS = ("x-groq-region", "x-ms-region", "x-region", "cf-ray")
RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit-")
LIMITS = ("x-ratelimit-limit-{}", "anthropic-ratelimit-{}-limit")
KEPT = 16  # rate-limit headers of one answer


def note(headers: Mapping[str, str], exchange: Exchange, received: float | None = None) -> None:
    """Puts the headers' facts onto the exchange; `received`, in seconds since the epoch, is when they came."""
    exchange.request_id = _one_of(REQUEST_IDS, headers) or exchange.request_id
    exchange.region = _one_of(REGIONS, headers) or exchange.region
    exchange.retry_after = retry_after(headers, received)
    if kept := {key: lenient.line(value, 64) for key, value in headers.items() if key.startswith(RATE_LIMITS)}:
        exchange.ratelimit = orjson.dumps(dict(sorted(kept.items())[:KEPT])).decode()


def _one_of(names: tuple[str, ...], headers: Mapping[str, str]) -> str | None:
    return next((lenient.name(headers[name]) for name in names if headers.get(name)), None)


def retry_after(headers: Mapping[str, str], received: float | None = None) -> float | None:
    """Seconds to wait, given as a number or as a date. A date is measured from the answer's own `date`, whose clock set
    it, and where there is none from when the answer came."""
    try:
        if "retry-after-ms" in headers:
            return lenient.seconds(float(headers["retry-after-ms"]), 1e-3)
        value = headers["retry-after"].strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return lenient.seconds(float(value))
        date = headers.get("date")
        now = parsedate_to_datetime(date) if date else datetime.fromtimestamp(received, UTC)  # type: ignore[arg-type]
        wait = parsedate_to_datetime(value) - now
        return lenient.seconds(max(0.0, wait.total_seconds()))
    except (KeyError, ValueError, TypeError):
        return None


def limits(headers: Mapping[str, str]) -> dict[str, int]:
    """The limits that an answer names: {"requests": 14400, "tokens": 18000, ...}; how long a period each one counts
    for is the vendor's: a minute, but for Groq's requests, which are counted by the day."""
    kinds = ("requests", "tokens", "input-tokens", "output-tokens")
    named = [(kind, headers.get(form.format(kind), "")) for kind in kinds for form in LIMITS]
    return {kind: int(value) for kind, value in named if re.fullmatch(r"[0-9]{1,15}", value)}
