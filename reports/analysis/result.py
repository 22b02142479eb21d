"""What one target did in one load step, as numbers: the entries of summary.json's "results". Durations in seconds.

Counted requests only, prefill's figures and decode's side by side and never averaged together, every quantile with its
interval and the samples it needs. Each dataclass here is a JSON object of the same fields. docs/metrics.md defines each
figure for readers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .quantiles import Quantile
from .slices import Slice
from .throughput import Throughput
from .time_account import Part


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests and tries: one row is one try, `requests` are the different ones, `admitted` is the share of them that
    was not refused for its rate at every try. `whole`: answers that did not stream; `at_once`: streams whose tokens,
    more than one, all came in one read, which say nothing of prefill apart from decode."""

    planned: int | None
    unsent: int
    recorded: int
    warmup: int
    counted: int
    ok: int
    failed: int
    requests: int
    admitted: float | None
    outcomes: dict[str, int]
    whole: int
    at_once: int
    retried: int


@dataclass(frozen=True, slots=True)
class DigestedQuantile(Quantile):
    """Beside the exact quantile the t-digest's, of the values alone, and how far it is off (0.01: 1 % too high)."""

    digest: float | None
    digest_error: float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """`n` values, and `failed` requests that rank as infinitely slow in the quantiles; the rest is of the values."""

    n: int
    failed: int
    mean: float | None
    min: float | None
    max: float | None
    quantiles: tuple[Quantile, ...]

    def at(self, q: float) -> Quantile:
        return next(quantile for quantile in self.quantiles if quantile.q == q)


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met every objective (metric -> seconds)."""

    objectives: dict[str, float]
    good: int
    share: float | None
    requests_per_s: float | None


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens that the trace asked for, against those that the server gave: medians and sums."""

    asked_p50: float | None
    given_p50: float | None
    asked: int | None
    given: int | None


@dataclass(frozen=True, slots=True)
class Reference:
    """TPOT per reference token: vendors' tokens differ, text doesn't."""

    unit: str
    tpot_p50: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Comparing E2E stands on the equality of what was asked and given."""

    prompt: Length
    output: Length
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class Cached:
    """The share of prompt tokens that the server reports as cached (by so many requests), and what the trace's own
    prefixes allow."""

    reported: float | None
    requests: int
    trace_allows: float | None


@dataclass(frozen=True, slots=True)
class ServerFigure:
    """A duration that the server itself reported, of `n` answers."""

    n: int
    mean: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class ClientState:
    """The client's condition: "ttft p50" -> both ends of its bracket (s), and shares of inexact instants."""

    brackets: dict[str, tuple[float, float]]
    shared_first_reads: float | None
    unstamped: float | None
    reused_connections: float | None
    max_lag: float | None


@dataclass(frozen=True, slots=True)
class InFlight:
    """The target's requests in flight when one was sent, itself included."""

    mean: float | None
    p50: float | None
    max: int | None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """A server wrote these texts, so they are cut and must be escaped."""

    outcome: str
    error: str
    n: int


@dataclass(frozen=True, slots=True)
class Result:
    """One target in one load step. `window` in seconds from the run's start; `server`: None for what it doesn't report;
    `cost`: see `throughput.costs`; `vllm`: the keys of vLLM's benchmark."""

    target: str
    step: str
    load: str
    window: tuple[float, float]
    counts: Counts
    metrics: dict[str, Metric]
    throughput: Throughput
    goodput: Goodput | None
    lengths: Lengths
    tokens_from: dict[str, int]
    cached: Cached
    phases: list[Part]
    server: dict[str, ServerFigure | None]
    cost: dict[str, float] | None
    overloaded: bool
    client: ClientState
    in_flight: InFlight
    slices: dict[str, list[Slice]]
    errors: list[ErrorCount]
    vllm: dict[str, float | None]

    def quantile(self, metric: str, q: float) -> Quantile:
        return self.metrics[metric].at(q)
