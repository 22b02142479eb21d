"""planning.json: a grid of simulations, point by point, and what holds of its targets whatever the load.

Durations in seconds, rates a second. JSON has null for what is unbounded or undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import orjson

from targets.simulated.analysis import Crossover, Hardware, Hybrid

FILE = "planning.json"

Value = float | str  # of an axis


@dataclass(frozen=True)
class Quantiles:
    """Failed requests rank as infinitely slow: inf where they leave a quantile unbounded; nan where nothing counted."""

    p50: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One target at one combination of the axes' values.

    rate       requests offered a second; `requests` of them counted, `failed` of those without an answer
    goodput    share of the counted requests that met every objective; without objectives, that were answered
    units      GPUs and racks
    *_mean     of the answered requests; None without one
    in_flight  requests in the endpoint, on average (Little's law)
    slo        "met", "missed" or "undecided" by the gates that concern the target; None without one
    gates      their verdicts, as summary.json has them
    """

    target: str
    values: Mapping[str, Value]
    rate: float
    requests: int
    failed: int
    goodput: float | None
    units: int
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    queue_mean: float | None
    prefill_mean: float | None
    transfer_mean: float | None
    decode_mean: float | None
    tokens_per_s: float
    in_flight: float
    dollars_per_mtok: float | None
    dollars_per_good_mtok: float | None
    joules_per_token: float | None
    slo: str | None
    gates: list[dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class Planning:
    """A whole grid, in a folder of its own. `axes`: name -> values; `goodput` and `slo` as the user gave them."""

    folder: Path
    model: str
    trace: str
    goodput: list[str]
    slo: list[str]
    axes: Mapping[str, list[Value]]
    points: list[Point]
    targets: list[Hardware]
    crossovers: list[Crossover]
    hybrids: list[Hybrid]

    def save(self) -> None:
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "folder"}
        (self.folder / FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
