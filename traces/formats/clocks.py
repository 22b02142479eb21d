"""Coarse timestamps: Mooncake's traces sit on ticks of 3 s, ten requests each.

Replayed as they stand they are spikes of up to 28 that no user caused (inter-arrival CV 3.03). Spread evenly inside
the tick they are what was logged: a Poisson process (CV 1.01). Rows keep their order; `--keep-ticks` keeps the
ticks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..trace import Trace
from ..transforms import pace
from .rows import Options, within

COARSE = 100_000_000  # ns; finer steps are a clock's resolution, not ticks
CROWDED = 2  # requests a tick, at least


def spread(trace: Trace, seed: int) -> Trace:
    due = trace.column("due")
    ticks, where, rows = np.unique(due, return_inverse=True, return_counts=True)
    if len(ticks) < 2 or rows.mean() < CROWDED:
        return trace
    steps = np.diff(ticks)
    tick = int(np.median(steps))
    if tick < COARSE:
        return trace
    width = np.minimum(np.append(steps, tick), tick)  # the log's ticks are a few ms off: never reach into the next
    within = np.random.default_rng(seed).random(len(due))
    order = np.lexsort((within, due))  # draws ascend inside a tick
    moved = due + (within[order] * width[where]).astype(np.int64)
    notes = {**trace.notes, "spread inside ticks of (s)": tick / 1e9}
    return replace(trace.with_columns(due=moved), notes=notes)


RATE = 1.0  # a second


def timed(trace: Trace, options: Options) -> Trace:
    note = {"no arrival times": f"Poisson at {RATE:g}/s, seed {options.seed}"}
    paced = within(pace(trace, RATE, seed=options.seed), options)
    return replace(paced, notes={**trace.notes, **note})
