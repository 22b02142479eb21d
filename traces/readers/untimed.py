"""Formats that hold lengths alone: requests, or sessions, come as a Poisson process of one a second, and notes say so.

`transforms.pace` and `speed` set another rate.
"""

from __future__ import annotations

from dataclasses import replace

from ..rows import Options, within
from ..trace import Trace
from ..transforms import pace

RATE = 1.0  # a second


def timed(trace: Trace, options: Options) -> Trace:
    note = {"no arrival times": f"Poisson at {RATE:g}/s, seed {options.seed}"}
    paced = within(pace(trace, RATE, seed=options.seed), options)
    return replace(paced, notes={**trace.notes, **note})
