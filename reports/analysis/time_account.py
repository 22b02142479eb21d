"""Where the time went: each part of a request measured, reported by the server, or not reported; never guessed.

Means, because means of parts add up to the mean of the whole (quantiles don't), over answered, counted requests. What
the server reports for fewer than REPORTED of them counts as not reported. What lies between `sent` and the first token
and is not reported is "not attributed": network, queue and prefill together where the server reports nothing.

Two-leg exchanges are measured at the client: the prefill leg, the client's own hand-over, and the decode leg up to its
first token (KV transfer, queue and first step together). Where the protocol sends both legs at once there is no
hand-over, and of the decode leg only what comes after prefill counts. A prompt that went straight to decode spends
nothing on prefill's leg.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traces.request import NS_PER_S

from .. import number_format
from . import quantiles
from .quantiles import Values, finite

MEASURED, BY_SERVER, ABSENT, REST = "measured", "told by the server", "not reported", "the rest of TTFT"
TOGETHER = "none: both legs were sent at once"
STRAIGHT = "none: all went straight to decode"
REPORTED = 0.99
CLIENT = ("client wait", "connection")
BEFORE_FIRST = ("queue", "prefill", "KV transfer")  # server phases inside TTFT, in order
ALL = (*CLIENT, *BEFORE_FIRST, "hand-over", "decode leg to first token", "not attributed", "decode")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the mean request's time (s; None where not reported), and who measured it (`standing`)."""

    phase: str
    standing: str
    mean: float | None
    p50: float | None
    p99: float | None


def account(answered: pd.DataFrame) -> list[Part]:
    """One part after the other, in order of time; empty without an answered request."""
    if not len(answered):
        return []
    return [
        _part("client wait", answered["lateness"], MEASURED),
        _part("connection", answered["connect"].fillna(0) + answered["upload"].fillna(0), MEASURED),
        *(_two_legs(answered) if answered["decode_sent"].notna().any() else _one_leg(answered)),
        _part("decode", (answered["last_token"] - answered["first_token"]) / NS_PER_S, MEASURED),
    ]


def _one_leg(answered: pd.DataFrame) -> Iterator[Part]:
    left = answered["ttft"] - answered["upload"].fillna(0)
    for phase, column in zip(BEFORE_FIRST, ("server_queue", "server_prefill", "server_transfer"), strict=True):
        if _reported(answered[column]):
            left = left - answered[column].fillna(0)
            yield _part(phase, answered[column], BY_SERVER)
        else:
            yield _none(phase, ABSENT)
    # Two clocks and rounding can make the sum exceed TTFT by a little; a negative rest would be a guess too.
    yield _part("not attributed", left.clip(lower=0), REST)


def _two_legs(answered: pd.DataFrame) -> Iterator[Part]:
    legs = answered["prefill_sent"].notna()
    together = bool((answered["decode_sent"] < answered["prefill_done"]).any())
    began = answered[["prefill_done", "decode_sent"]].max(axis=1)
    yield _leg("prefill", (answered["prefill_done"] - answered["prefill_sent"]) / NS_PER_S, legs)
    if together:
        yield _none("hand-over", TOGETHER)
    else:
        yield _leg("hand-over", (began - answered["prefill_done"]) / NS_PER_S, legs)
    # With both legs at once, prefill's answer may end after decode's first token.
    left = ((answered["first_token"] - began) / NS_PER_S).clip(lower=0)
    yield _part("decode leg to first token", left, MEASURED)


def _leg(phase: str, took: pd.Series[float], legs: pd.Series[bool]) -> Part:
    """Prompts that went straight to decode spend nothing here, and are in the mean, so that the parts add up."""
    ran, straight = int(legs.sum()), int((~legs).sum())
    if not ran:
        return _none(phase, STRAIGHT)
    others = f"; {straight:,} of {len(legs):,} went straight to decode, the others' mean is "
    standing = f"{MEASURED}{others}{number_format.ms(float(took[legs].mean()), unit=True)}" if straight else MEASURED
    return _part(phase, took.where(legs, 0), standing)


def _none(phase: str, standing: str) -> Part:
    return Part(phase, standing, None, None, None)


def _reported(column: pd.Series[float]) -> bool:
    return bool(column.notna().mean() >= REPORTED)


def _part(phase: str, column: pd.Series[float], standing: str) -> Part:
    values: Values = np.sort(column.dropna().to_numpy(np.float64))
    mean = finite(float(values.mean())) if len(values) else None
    return Part(phase, standing, mean, finite(quantiles.at(values, 0.5)), finite(quantiles.at(values, 0.99)))
