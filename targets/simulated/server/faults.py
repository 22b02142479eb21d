"""What a server does wrong or refuses on request, for testing testers. Pure: instants are given.

Faults, `stall=0.01,reset=0.01,http500=0.01,malformed=0.01,truncate=0.01`: each is the share of requests that it
befalls, drawn by the server's seed. `http500` answers so at once; the others strike a stream after some of its tokens:
`stall` sends no more and keeps the connection, `reset` resets it, `malformed` sends an event that is no JSON,
`truncate` ends the body properly but long before its end. Answers that are not streamed are only hit by `http500`.

Groq's rate limits: requests a day and tokens a minute, as buckets that refill evenly. Source of the headers' names and
forms: https://console.groq.com/docs/rate-limits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from traces.errors import InputError

KINDS = ("http500", "malformed", "reset", "stall", "truncate")
DAY, MINUTE = 86_400.0, 60.0


class Faults:
    """Draws requests' fates by the shares of `--fault`. InputError for unknown kinds, and shares not in 0..1 in all."""

    def __init__(self, text: str, seed: int = 0) -> None:
        self.shares: dict[str, float] = {}
        self._random = random.Random(seed)
        for part in filter(None, text.split(",")):
            kind, _, share = part.partition("=")
            try:
                self.shares[kind.strip()] = float(share)
            except ValueError:
                raise InputError(f"--fault {part}", remedy="KIND=SHARE, as in stall=0.01") from None
        if not set(self.shares) <= set(KINDS):
            raise InputError(f"--fault {text}", remedy=f"kinds are {', '.join(KINDS)}")
        if not (all(share >= 0 for share in self.shares.values()) and sum(self.shares.values()) <= 1):
            raise InputError(f"--fault {text}", remedy="shares are at least 0 and at most 1 together")

    def draw(self) -> str | None:
        """The fault of the next request, None for none."""
        point = self._random.random()
        for kind, share in self.shares.items():
            if point < share:
                return kind
            point -= share
        return None

    def strike_after(self, output: int) -> int:
        """Tokens that a stream of `output` sends before its fault."""
        return self._random.randint(0, max(0, output - 1))


@dataclass(slots=True)
class RateBucket:
    """`level` of `size` units at the instant `at`; they refill within `period` seconds."""

    size: float
    period: float
    level: float
    at: float = 0.0

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.size / self.period)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until there are `amount` units."""
        return max(0.0, (amount - self.level) * self.period / self.size)


class RateLimits:
    """`requests` a day and `tokens` a minute; 0 for no limit of that kind."""

    def __init__(self, requests: int = 0, tokens: int = 0) -> None:
        sizes = (("requests", requests, DAY), ("tokens", tokens, MINUTE))
        self.buckets = {name: RateBucket(size, period, size) for name, size, period in sizes if size}

    def take(self, tokens: int, now: float) -> tuple[float, str, dict[str, str]]:
        """Takes one request of `tokens`, if there is room: (seconds to wait, the limit at fault, headers)."""
        amounts = {"requests": 1, "tokens": tokens}
        wait, fault = 0.0, ""
        for name, bucket in self.buckets.items():
            bucket.fill(now)
            if (seconds := bucket.wait(amounts[name])) > wait:
                wait, fault = seconds, name
        headers = {}
        for name, bucket in self.buckets.items():
            if not wait:
                bucket.level -= amounts[name]
            headers[f"x-ratelimit-limit-{name}"] = f"{bucket.size:.0f}"
            headers[f"x-ratelimit-remaining-{name}"] = f"{int(bucket.level)}"
            headers[f"x-ratelimit-reset-{name}"] = duration(bucket.wait(bucket.size))
        if wait:
            headers["retry-after"] = f"{max(1, round(wait))}"
        return wait, fault, headers


def duration(seconds: float) -> str:
    """As Groq writes it: 2m59.56s, 7.66s, 1h2m3s."""
    hours, rest = divmod(round(seconds, 2), 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{text}"
    return f"{minutes:.0f}m{text}" if minutes else text
