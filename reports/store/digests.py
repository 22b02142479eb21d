"""t-digests of a run's phase metrics, by target, load step and metric.

What goes in: counted exchanges only. An exchange that didn't end well adds nothing but a count, because a failed
request has no latency that could be compared; whoever reads a quantile restores its rank from that count, as
`quantiles.quantile` does. Lateness and client lag are the client's own and are taken from every counted exchange.

`fastdigest` is the engine (Rust); its dict is what the `tdigest` package reads as well, and digests.json holds it.
With up to CENTROIDS values it keeps each of them and its quantile is the linear interpolation between order
statistics, as in `reports.analysis.quantiles`: exact, and near by (0.2 % at p50 and p99) for more. Workers hand over
the whole digest, once, at the end: to compress it for the wire cost 1 % at 300 values and saved nothing that mattered.

Pandas is never imported here: workers keep digests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastdigest import TDigest

from targets.exchange import Exchange
from traces.errors import InputError
from traces.files import regular, write_whole
from traces.request import NS_PER_S
from traces.typed_json import from_json, named, to_json

Origin = Literal["workers", "rows"]
DigestState = dict[str, Any]  # a TDigest's to_dict

METRICS = ("ttft", "ttft_from_due", "tpot", "itl", "e2e", "lateness", "client_lag")
# The client's own are of every counted exchange; ITL's samples are gaps, so a failed request has no rank among them.
UNADJUSTED = ("lateness", "client_lag", "itl")
CENTROIDS = 2000  # 32 kB at most


@dataclass
class Group:
    """The digests of one target in one load step; seconds."""

    counted: int = 0
    failed: int = 0
    digests: dict[str, TDigest] = field(default_factory=lambda: {name: TDigest(CENTROIDS) for name in METRICS})


@dataclass(frozen=True)
class MetricDigest:
    """One digest as digests.json and a worker's message hold it, with its Group's counts."""

    target: str
    step: str
    counted: int
    failed: int
    metric: str
    digest: DigestState
    unit: str = "s"


@dataclass(frozen=True)
class DigestsFile:
    """digests.json. `origin`: see `Digests`."""

    origin: Origin = field(metadata=named("from"))
    digests: tuple[MetricDigest, ...]


class Digests:
    """t-digests by (target, step), each with the seven METRICS."""

    def __init__(self, origin: Origin = "workers") -> None:
        self.groups: defaultdict[tuple[str, str], Group] = defaultdict(Group)
        self.origin = origin  # "workers": merged from theirs; "rows": computed from the result files

    def add(self, exchange: Exchange) -> None:
        """Takes a finished exchange's figures; those outside the window are left out."""
        if not exchange.call.counted:
            return
        group = self.groups[exchange.target, exchange.step]
        group.counted += 1
        group.failed += not exchange.ok
        if exchange.stepped:  # its instants can't be compared
            return
        digests = group.digests
        _update(digests["lateness"], exchange.lateness)
        _update(digests["client_lag"], None if exchange.first_lag is None else exchange.first_lag / NS_PER_S)
        if exchange.ok:
            for metric in ("ttft", "ttft_from_due", "tpot", "e2e"):
                _update(digests[metric], getattr(exchange, metric))
            if len(exchange.token_at) > 1:
                gaps: Any = np.diff(np.frombuffer(exchange.token_at, np.int64)) / NS_PER_S
                digests["itl"].batch_update(gaps)

    def add_values(self, target: str, step: str, metric: str, values: Any) -> None:
        """Takes an array of one metric (seconds, all finite); counts are the caller's: see `count`."""
        if len(values):
            self.groups[target, step].digests[metric].batch_update(values)

    def count(self, target: str, step: str, counted: int, failed: int) -> None:
        self.groups[target, step].counted += counted
        self.groups[target, step].failed += failed

    def quantile(self, target: str, step: str, metric: str, q: float) -> float:
        """Seconds, of the values alone; nan without any."""
        group = self.groups.get((target, step))
        if group is None or group.digests[metric].is_empty():
            return nan
        return float(group.digests[metric].quantile(q))

    def state(self) -> tuple[MetricDigest, ...]:
        """All digests that hold a value (at most about 46 kB each). State, not increments: whoever collects keeps the
        latest of each worker and merges those."""
        return tuple(
            MetricDigest(target, step, group.counted, group.failed, name, digest.to_dict())
            for (target, step), group in sorted(self.groups.items())
            for name, digest in group.digests.items()
            if not digest.is_empty()
        )

    def merge(self, state: Sequence[MetricDigest]) -> None:
        for group in {(each.target, each.step, each.counted, each.failed) for each in state}:
            self.count(*group)
        for each in state:
            self.groups[each.target, each.step].digests[each.metric] += TDigest.from_dict(each.digest)

    def save(self, path: Path) -> None:
        write_whole(path, to_json(DigestsFile(self.origin, self.state()), indent=False))

    @classmethod
    def load(cls, path: Path) -> Digests:
        """Reads what `save` wrote. InputError for anything else."""
        try:
            stored = from_json(DigestsFile, regular(path).read_bytes(), str(path))
            digests = cls(stored.origin)
            digests.merge(stored.digests)
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as problem:
            raise InputError(f"not readable as digests: {problem}", where=str(path)) from None
        return digests


def _update(digest: TDigest, value: float | None) -> None:
    if value is not None and isfinite(value):  # update(inf) raises, and a digest of nan is worthless
        digest.update(value)
