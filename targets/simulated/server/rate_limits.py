"""Groq's rate limits: requests a day and tokens a minute, as buckets that refill evenly. Pure: instants are given.

Source of the headers' names and forms: https://console.groq.com/docs/rate-limits.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY, MINUTE = 86_400.0, 60.0


@dataclass(slots=True)
class Bucket:
    """`size` units that refill within `period` seconds."""

    size: float
    period: float
    level: float = -1.0
    at: float = 0.0

    def fill(self, now: float) -> None:
        if self.level < 0:
            self.level = self.size
        self.level = min(self.size, self.level + (now - self.at) * self.size / self.period)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until there are `amount` units."""
        return max(0.0, (amount - self.level) * self.period / self.size)


class Limits:
    """`requests` a day and `tokens` a minute; 0 for no limit of that kind."""

    def __init__(self, requests: int = 0, tokens: int = 0) -> None:
        self.buckets: dict[str, Bucket] = {}
        if requests:
            self.buckets["requests"] = Bucket(requests, DAY)
        if tokens:
            self.buckets["tokens"] = Bucket(tokens, MINUTE)

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
