"""`Load`: how a trace is paced and cut. Each field is an option of that name, with its default; `pacing` applies it.

Nothing heavy is imported here: `--help` needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from traces.errors import InputError, check_factor

FASTEST = 1_000_000.0  # requests/s


@dataclass(frozen=True)
class Load:
    """How a trace is paced and cut: durations in seconds, rates in requests a second. Raises InputError."""

    speedup: float = 1.0
    request_rate: float | None = None
    burstiness: float = 1.0
    concurrency: int | None = None
    duration: float | None = None
    warmup: float = 0.0
    drain_timeout: float = 60.0
    request_count: int | None = None
    max_context: int | None = None
    open_loop: bool = False
    retries: int = 0
    leave: float = 0.0
    skip_bad_rows: bool = False
    keep_ticks: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value in (("--duration", self.duration), ("--drain-timeout", self.drain_timeout)):
            if value is not None and not 0 < value < inf:
                raise InputError(f"must be positive and finite, not {value:g} s", where=option)
        if not 0 <= self.warmup < inf:
            raise InputError(f"must not be negative, and finite, but is {self.warmup:g} s", where="--warmup")
        check_factor(self.speedup, "--speedup")
        if self.request_rate is not None and FASTEST < self.request_rate < inf:
            raise InputError(
                f"at most {FASTEST:,.0f} requests/s, not {self.request_rate:g}",
                where="--request-rate",
                remedy="inf sends all at once",
            )
        for option, count, least in (
            ("--concurrency", self.concurrency, 1),
            ("--request-count", self.request_count, 1),
            ("--max-context", self.max_context, 2),
            ("--retries", self.retries, 0),
            ("--seed", self.seed, 0),
        ):
            if count is not None and count < least:
                raise InputError(f"must be at least {least}, not {count}", where=option)
        if self.concurrency is not None and self.request_rate is not None:
            raise InputError("can't be combined with --request-rate", where="--concurrency", remedy="give one of them")
        if not 0 <= self.leave <= 1:
            raise InputError(f"must be a share from 0 to 1, not {self.leave:g}", where="--leave")

    @property
    def seconds(self) -> float | None:
        """Warm-up and window together."""
        return None if self.duration is None else self.warmup + self.duration

    def describe(self) -> str:
        """The load in a few words, for reports."""
        if self.concurrency is not None:
            return f"{self.concurrency} in flight"
        if self.request_rate is not None:
            return f"{self.request_rate:g} requests/s"
        return "trace" if self.speedup == 1 else f"trace x {self.speedup:g}"
