"""Where the time went: each phase of a request measured, told by the server, or not reported; never guessed.

Means, because means of parts add up to the mean of the whole (quantiles don't), over answered, counted requests. A
phase that the server tells for fewer than REPORTED of them is not reported. What lies between `sent` and the first
token and is not told is "not attributed": network, queue and prefill together where the server says nothing.

Two-leg exchanges are measured at the client: the prefill leg, the client's own hand-over, and the decode leg up to its
first token (KV transfer, queue and first step together). Where the protocol sends both legs at once there is no
hand-over, and of the decode leg only what comes after prefill counts. A prompt that went straight to decode spends
nothing on prefill's leg.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from targets.exchange import NANO

from .. import number_format
from . import quantiles
from .quantiles import Values, finite

MEASURED, TOLD, ABSENT, REST = "measured", "told by the server", "not reported", "the rest of TTFT"
TOGETHER = "none: both legs were sent at once"
STRAIGHT = "none: all went straight to decode"
REPORTED = 0.99
CLIENT = ("client wait", "connection")
BEFORE_FIRST = ("queue", "prefill", "KV transfer")  # server phases inside TTFT, in order
ALL = (*CLIENT, *BEFORE_FIRST, "hand-over", "decode leg to first token", "not attributed", "decode")


def account(answered: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry a phase, in order of time: {"phase", "standing", "mean", "p50", "p99"} (s; None where not reported)."""
    if not len(answered):
        return []
    return [
        _entry("client wait", answered["lateness"], MEASURED),
        _entry("connection", answered["connect"].fillna(0) + answered["upload"].fillna(0), MEASURED),
        *(_two_legs(answered) if answered["decode_sent"].notna().any() else _one_leg(answered)),
        _entry("decode", (answered["last_token"] - answered["first_token"]) * NANO, MEASURED),
    ]


def _one_leg(answered: pd.DataFrame) -> Iterator[dict[str, Any]]:
    left = answered["ttft"] - answered["upload"].fillna(0)
    for phase, column in zip(BEFORE_FIRST, ("server_queue", "server_prefill", "server_transfer"), strict=True):
        if _reported(answered[column]):
            left = left - answered[column].fillna(0)
            yield _entry(phase, answered[column], TOLD)
        else:
            yield _none(phase, ABSENT)
    # Two clocks and rounding can make the sum exceed TTFT by a little; a negative rest would be a guess too.
    yield _entry("not attributed", left.clip(lower=0), REST)


def _two_legs(answered: pd.DataFrame) -> Iterator[dict[str, Any]]:
    legs = answered["prefill_sent"].notna()
    together = bool((answered["decode_sent"] < answered["prefill_done"]).any())
    began = answered[["prefill_done", "decode_sent"]].max(axis=1)
    yield _leg("prefill", (answered["prefill_done"] - answered["prefill_sent"]) * NANO, legs)
    if together:
        yield _none("hand-over", TOGETHER)
    else:
        yield _leg("hand-over", (began - answered["prefill_done"]) * NANO, legs)
    # With both legs at once, prefill's answer may end after decode's first token.
    left = ((answered["first_token"] - began) * NANO).clip(lower=0)
    yield _entry("decode leg to first token", left, MEASURED)


def _leg(phase: str, took: pd.Series[float], legs: pd.Series[bool]) -> dict[str, Any]:
    """Prompts that went straight to decode spend nothing here, and are in the mean, so that the parts add up."""
    ran, straight = int(legs.sum()), int((~legs).sum())
    if not ran:
        return _none(phase, STRAIGHT)
    told = f"; {straight:,} of {len(legs):,} went straight to decode, the others' mean is "
    standing = f"{MEASURED}{told}{number_format.ms(float(took[legs].mean()), unit=True)}" if straight else MEASURED
    return _entry(phase, took.where(legs, 0), standing)


def _none(phase: str, standing: str) -> dict[str, Any]:
    return {"phase": phase, "standing": standing, "mean": None, "p50": None, "p99": None}


def _reported(column: pd.Series[float]) -> bool:
    return bool(column.notna().mean() >= REPORTED)


def _entry(phase: str, column: pd.Series[float], standing: str) -> dict[str, Any]:
    values: Values = np.sort(column.dropna().to_numpy(np.float64))
    return {
        "phase": phase,
        "standing": standing,
        "mean": finite(float(values.mean())) if len(values) else None,
        "p50": finite(quantiles.at(values, 0.5)),
        "p99": finite(quantiles.at(values, 0.99)),
    }


def costs(target: Mapping[str, Any], tokens_per_s: float, good_tokens_per_s: float | None) -> dict[str, float] | None:
    """What a million output tokens cost at this load, by the target's price per hour and watts; None without either.

    The price is of the whole target, whatever number of machines stands behind its address.
    """
    price, watts = target.get("price_per_hour"), target.get("watts")
    if (not price and not watts) or tokens_per_s <= 0:
        return None
    found = {}
    if price:
        found["per_million_tokens"] = float(price) / 3600 / tokens_per_s * 1e6
        if good_tokens_per_s:
            found["per_million_good_tokens"] = float(price) / 3600 / good_tokens_per_s * 1e6
    if watts:
        found["joules_per_token"] = float(watts) / tokens_per_s
    return found
