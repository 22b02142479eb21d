"""`Load`: how a trace is paced and cut, and the requests that it makes of one.

Each field is an option of that name, with its default. `--help` reads them: what is heavy is imported when a trace is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from traces.errors import InputError, check_factor
from traces.request import NS_PER_S

if TYPE_CHECKING:
    from traces.trace import Trace

LONGEST = 10_000_000  # tokens of a prompt; more is a slip of the keyboard
MOST = 50_000_000  # requests of a step, too
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

    def requests(self, trace: Trace | str) -> Trace:
        """The requests of one load step with their final due instants, in nanoseconds from its start; of a trace or of
        the one of that name (see `traces.open_trace`). Raises InputError."""
        from traces import transforms

        paced = self._opened(trace) if isinstance(trace, str) else trace
        name = trace if isinstance(trace, str) else trace.source or trace.name
        if not len(paced):
            raise InputError("the trace is empty", where=name)
        if self.speedup != 1:
            paced = transforms.speedup(paced, self.speedup)
        if self.request_rate is not None:
            paced = transforms.pace(paced, self.request_rate, burstiness=self.burstiness, seed=self.seed)
        if self.seconds is not None and self.concurrency is None:
            paced = transforms.clip(paced, 0, self.seconds)
        if self.request_count is not None:
            paced = transforms.limit(paced, self.request_count)
        if self.max_context is not None:
            paced = transforms.cap_context(paced, self.max_context)
        if not len(paced):
            raise InputError("no request is left to send", where=name, remedy="a longer --duration?")
        self._check(paced, name)
        return paced

    def _opened(self, name: str) -> Trace:
        """As much of the trace as its own instants bring into the run."""
        from traces.reading import open_trace

        if not name:
            raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
        timed = self.request_rate is None and self.concurrency is None
        until = self.seconds * self.speedup if timed and self.seconds is not None else None
        return open_trace(
            name, until=until, skip_bad_rows=self.skip_bad_rows, keep_ticks=self.keep_ticks, seed=self.seed
        )

    def _check(self, trace: Trace, name: str) -> None:
        """Refuses what would stall, or send without counting anything."""
        if len(trace) > MOST:
            raise InputError(f"{len(trace):,} requests", where=name, remedy=f"at most {MOST:,}: give --duration")
        lengths = trace.column("prompt_tokens")
        if (longest := int(lengths.max())) > LONGEST:
            index = trace.column("index")[lengths.argmax()]
            message = f"request {index} has a prompt of {longest:,} tokens"
            raise InputError(message, where=name, remedy="--max-context cuts it")
        waits = self.concurrency is not None or (
            trace.has("session") and not self.open_loop
        )  # else the instants are known
        end = int(trace.column("due")[-1])
        if not waits and end < self.warmup * NS_PER_S:
            message = f"the trace ends at {end / NS_PER_S:g} s, before the warm-up does ({self.warmup:g} s)"
            raise InputError(message, where="--warmup")
