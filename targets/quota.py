"""A target's quota: what its vendor admits in a minute or a day, by targets.toml or by an answer's headers. Pure.

Vendors count requests, tokens of prompts and answers together, or both apart, over a minute or a day. Tokens of answers
are counted by what a request asks for (`max_tokens`), which is the trace's length. What the headers say of the period
differs: OpenAI's and Azure's limits are by the minute, as are Anthropic's; Groq's requests are by the day and its
tokens by the minute (console.groq.com/docs/rate-limits); some name the period (`-minute`, `-per-day`). Where nothing is
said it is a minute. What targets.toml says goes before a header about the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from traces.request import NS_PER_S

from .rules import split
from .target import QUOTAS, TargetFields

PERIODS = {"minute": 60 * NS_PER_S, "day": 86_400 * NS_PER_S}
KINDS = ("requests", "tokens", "input tokens", "output tokens")
CONCURRENT = "concurrent_requests"
FORMS = (
    re.compile(r"x-ratelimit-limit-(?P<kind>requests|tokens)(-(per-)?(?P<period>minute|day))?"),
    re.compile(r"anthropic-ratelimit-(?P<kind>requests|tokens|input-tokens|output-tokens)-limit(?P<period>)"),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many of a kind (one of KINDS) in any period ("minute", "day"). `source`: who says so."""

    kind: str
    period: str
    most: int
    source: str

    @property
    def period_ns(self) -> int:
        return PERIODS[self.period]

    def __str__(self) -> str:
        return f"{self.most:,} {self.kind} a {self.period} ({self.source})"


def limits(target: TargetFields, headers: Mapping[str, str] | None = None) -> list[Limit]:
    """The limits that a target is known to have; `headers`: the rate-limit headers of one of its answers."""
    stated = list(_stated(target))
    known = {(limit.kind, limit.period) for limit in stated}
    return stated + [each for each in _shown(target, headers or {}) if (each.kind, each.period) not in known]


def _stated(target: TargetFields) -> Iterator[Limit]:
    for name in QUOTAS:
        kind, _, period = name.rpartition("_per_")
        if (most := getattr(target, name)) is not None and name != CONCURRENT:
            yield Limit(kind.replace("_", " "), period, most, name)


def _shown(target: TargetFields, headers: Mapping[str, str]) -> Iterator[Limit]:
    for name, value in sorted(headers.items()):
        form = next(filter(None, (form.fullmatch(name.lower()) for form in FORMS)), None)
        if form and re.fullmatch(r"[0-9]{1,15}", value) and int(value):
            kind = form["kind"].replace("-", " ")
            yield Limit(kind, form["period"] or _usual(target, kind), int(value), name.lower())


def _usual(target: TargetFields, kind: str) -> str:
    groq = target.endpoint_type == "groq" or (split(target.url).hostname or "").endswith("groq.com")
    return "day" if groq and kind == "requests" else "minute"
