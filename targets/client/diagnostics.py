"""What a client process knows of its own quality: `targets.client.loop` counts it, run.json keeps it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from traces.typed_json import LEFT_OUT


@dataclass(frozen=True)
class ClockStep:
    """The clock was set: when, in seconds of the run, and by how much."""

    at_s: float
    step_s: float


@dataclass(frozen=True)
class SafeLoad:
    """A load that `phaseload certify` found to be measured truly; it covers each load that has no more of either.
    `rate`: chunks/s."""

    streams: int
    rate: float

    def covers(self, other: SafeLoad, slack: float = 1.0) -> bool:
        return other.streams <= slack * self.streams and other.rate <= slack * self.rate

    def __str__(self) -> str:
        return f"{self.rate:,.0f} chunks/s of {self.streams:,.0f} streams"


@dataclass(frozen=True)
class Certified:
    """The machine's certificate (`phaseload certify`): when it was made (ISO 8601), and the safe loads."""

    created: str
    safe: tuple[SafeLoad, ...]


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Of one process since its first client was made."""

    time_source: Literal["kernel", "mixed", "user"]  # of reads' instants
    reads: int
    reads_unstamped: int  # without a kernel time
    reads_fast: int  # read by `fast_path`
    most_tokens_per_s: float  # of the busiest second
    most_streams: int  # open at once
    connections_opened: int
    connections_reused: int
    reconnected: int
    internal_faults: int
    stalls_over_10ms: int  # of the event loop
    longest_stall_s: float
    cpu_s: float
    wall_s: float
    open_files_limit: int
    collections: int  # of garbage
    collections_s: float
    longest_collection_s: float
    clock_steps: tuple[ClockStep, ...]
    certificate: Certified | None = field(default=None, metadata=LEFT_OUT)
    beyond_certificate: str | None = field(default=None, metadata=LEFT_OUT)  # why; "" for a load within it
