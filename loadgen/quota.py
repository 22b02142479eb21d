"""Can a target's limits admit the load? Its requests and tokens a period against the trace's worst period. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from traces.trace import Trace

MINUTE, DAY = 60_000_000_000, 86_400_000_000_000  # nanoseconds
NAMES = {MINUTE: "minute", DAY: "day"}
# How long a limit counts for: a minute everywhere, but for Groq's requests (console.groq.com/docs/rate-limits).
PERIODS = {("groq", "requests"): DAY}


def worst(due: npt.NDArray[np.int64], amount: npt.NDArray[np.int64], period: int) -> int:
    """The most that falls into any half-open window of `period` nanoseconds; `due` is sorted."""
    total = np.concatenate(([0], np.cumsum(amount)))
    last = np.searchsorted(due, due + period, side="left")
    return int(np.max(total[last] - total[np.arange(len(due))])) if len(due) else 0


def shortfalls(limits: Mapping[str, int], trace: Trace, endpoint_type: str) -> Iterator[str]:
    """A line for each limit that the trace's worst period exceeds."""
    due, prompt, output = (trace.column(name) for name in ("due", "prompt_tokens", "output_tokens"))
    amounts = {
        "requests": np.ones(len(due), np.int64),
        "tokens": prompt + output,
        "input-tokens": prompt,
        "output-tokens": output,
    }
    for kind, limit in limits.items():
        period = PERIODS.get((endpoint_type, kind), MINUTE)
        needed = worst(due, amounts[kind], period)
        if needed > limit:
            name = NAMES[period]
            yield (
                f"admits {limit:,} {kind} a {name}, the trace's worst {name} needs {needed:,}: "
                f"at most {limit / needed:.0%} of it would be let in"
            )
