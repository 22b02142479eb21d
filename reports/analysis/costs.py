"""What a target's work costs: dollars by request and token, at a load and at the trace's mean. Pure.

A target is paid by the hour or by the token. An hour costs the same whether the machine works or idles, so that a
figure by the hour holds for one load only: `at_this_load` spreads the price over what the target did in a step's
window, `at_mean_load` over the same work done at the trace's own mean rate, which is what a machine costs that is
bought for the peak. Tokens cost the same at any load. docs/metrics.md defines each figure for readers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

import numpy as np

from targets.target import TargetFields

if TYPE_CHECKING:  # samples bring pandas, and a plan's forecast needs prices alone
    from .samples import Sample

MILLION = 1e6
HOUR = 3600.0
CARRIED = 0.9  # of the trace's mean rate that a target must have answered for its cost there to be known


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars by the hour, of the whole target, or by a million tokens. `cached` None: cached tokens cost as others."""

    per_hour: float | None = None
    per_million_input: float | None = None
    per_million_cached: float | None = None
    per_million_output: float | None = None

    @classmethod
    def of(cls, target: TargetFields) -> Price | None:
        """None where the target names no price."""
        price = cls(
            target.price_per_hour, target.price_per_million_input, target.price_per_million_cached,
            target.price_per_million_output,
        )  # fmt: skip
        return None if price == cls() else price

    @property
    def by(self) -> Literal["hour", "token"]:
        return "token" if self.per_hour is None else "hour"

    def dollars(self, usage: Usage) -> float:
        if self.per_hour is not None:
            return self.per_hour * usage.seconds / HOUR
        cached = self.per_million_input if self.per_million_cached is None else self.per_million_cached
        tokens = (usage.input - usage.cached, usage.cached, usage.output)
        prices = (self.per_million_input, cached, self.per_million_output)
        return sum(n * (price or 0.0) for n, price in zip(tokens, prices, strict=True)) / MILLION


@dataclass(frozen=True, slots=True)
class Usage:
    """What a target did in so many seconds: answered requests; tokens of prompts, those of them that it had cached, and
    tokens of answers; and those tokens of answers that met every objective (None without objectives)."""

    seconds: float
    requests: float
    input: float
    cached: float
    output: float
    good: float | None = None

    def __add__(self, other: Usage) -> Usage:
        good = None if self.good is None or other.good is None else self.good + other.good
        return Usage(
            self.seconds + other.seconds, self.requests + other.requests, self.input + other.input,
            self.cached + other.cached, self.output + other.output, good,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dollars:
    """What a request costs, and a million tokens: of prompts and answers together, of answers alone, and of answers
    that met every objective, which bear the cost of the others too. None where there were none."""

    per_request: float | None
    per_million_tokens: float | None
    per_million_output: float | None
    per_million_good: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """One target in one load step. `by`: how it is paid, None where no price is named; `simulated`: the price is an
    assumption about hardware that wasn't there; `mean_rate`: the trace's, in requests/s; `at_mean_load`: None where
    the target wasn't seen to answer that rate; `joules_per_token`: None where no watts are named."""

    by: Literal["hour", "token"] | None
    simulated: bool
    at_this_load: Dollars | None
    at_mean_load: Dollars | None
    mean_rate: float | None
    joules_per_token: float | None


def cost(target: TargetFields | None, usage: Usage, mean_rate: float | None, *, simulated: bool = False) -> Cost | None:
    """None where the target names neither price nor watts. `mean_rate`: the trace's, in requests/s."""
    price, watts = (Price.of(target), target.watts) if target else (None, None)
    if price is None and watts is None:
        return None
    joules = watts * usage.seconds / usage.output if watts and usage.output else None
    if price is None:
        return Cost(None, simulated, None, None, None, joules)
    carried = mean_rate is not None and usage.requests >= CARRIED * mean_rate * usage.seconds
    at_mean = replace(usage, seconds=usage.requests / mean_rate) if mean_rate and carried else None
    return Cost(
        price.by, simulated, dollars(price, usage), None if at_mean is None else dollars(price, at_mean), mean_rate,
        joules,
    )  # fmt: skip


def dollars(price: Price, usage: Usage) -> Dollars:
    spent = price.dollars(usage)
    return Dollars(
        per_request=spent / usage.requests if usage.requests else None,
        per_million_tokens=_per_million(spent, usage.input + usage.output),
        per_million_output=_per_million(spent, usage.output),
        per_million_good=_per_million(spent, usage.good),
    )


def _per_million(spent: float, tokens: float | None) -> float | None:
    return spent / tokens * MILLION if tokens else None


def usage_of(sample: Sample) -> Usage:
    """What the sample's target did inside its window, or its rounds' windows. A prompt counts where its first token
    came inside the window, by the server's usage, and by the trace where the server told none."""
    return reduce(add, map(_usage, sample.rounds))


def _usage(sample: Sample) -> Usage:
    seconds, rates, begun = sample.window_s, sample.throughput, sample.rows["first_token"]
    inside = sample.rows[(begun >= sample.window[0]) & (begun < sample.window[1])]
    prompt = inside["usage_prompt"].fillna(inside["prompt_tokens"]).to_numpy()
    cached = np.minimum(inside["usage_cached"].fillna(0).to_numpy(), prompt)
    good = None if sample.good_tokens_per_s is None else sample.good_tokens_per_s * seconds
    return Usage(
        seconds, rates.requests_per_s * seconds, float(prompt.sum()), float(cached.sum()),
        rates.output_tokens_per_s * seconds, good,
    )  # fmt: skip
