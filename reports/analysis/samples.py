"""The samples of a run, built once: summary, gates, comparison, report and the points of a sweep read the same ones.

A sample is what one target answered in one load step: its rows, the sorted durations of each metric, and the counts
and rates that follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from traces.request import NS_PER_S

from ..store.digests import UNADJUSTED
from ..store.run_folder import Key, Run
from . import quantiles
from .durations import BRACKETS, DURATIONS
from .quantiles import Quantile, Values
from .throughput import Throughput, meets, rates

CLIENTS_OWN = ("lateness", "client_lag")  # metrics of every counted request, answered or not
NOTHING = np.array([], np.float64)


@dataclass(frozen=True)
class Sample:
    """One target in one load step.

    `n` requests were counted (due inside the window), of which `failed` have no latency; `good` met every objective
    (None without objectives). `values`: metric -> sorted, finite seconds of the answered requests (lateness and client
    lag: of all counted ones; "itl": of the gaps between reads). `window` is in ns from the run's start.
    """

    target: str
    step: str
    n: int
    failed: int
    window: tuple[float, float]
    values: Mapping[str, Values]
    throughput: Throughput
    good: int | None = None
    good_tokens_per_s: float | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)  # warm-up included

    @property
    def window_s(self) -> float:
        return (self.window[1] - self.window[0]) / NS_PER_S

    @property
    def goodput(self) -> float | None:
        """Requests per second of the window that met every objective."""
        return self.good / self.window_s if self.good is not None and self.window_s else None

    @property
    def counted(self) -> pd.DataFrame:
        return self.rows[self.rows["counted"]]

    @property
    def answered(self) -> pd.DataFrame:
        return self.rows[self.rows["counted"] & self.rows["ok"]]

    def failed_in(self, metric: str) -> int:
        """Requests that count as infinitely slow in this metric: none where every counted request has a value, and none
        in ITL, whose sample is gaps."""
        return 0 if metric in UNADJUSTED else self.failed

    def quantile(self, metric: str, q: float) -> Quantile:
        """Failures rank as infinitely slow."""
        return quantiles.quantile(self.values[metric], q, self.failed_in(metric))


def samples_of(run: Run, objectives: Mapping[str, float]) -> dict[Key, Sample]:
    """By target and step, in the order of a report. `objectives`: metric -> seconds; {} for none."""
    return {
        key: sample(*key, rows, run.window(key, rows), objectives, run.gaps.get(key, NOTHING))
        for key, rows in run.groups()
    }


def sample(
    target: str,
    step: str,
    rows: pd.DataFrame,
    window: tuple[float, float],
    objectives: Mapping[str, float],
    gaps: Values = NOTHING,
) -> Sample:
    """`rows`: one target's in one step, warm-up included, with the columns of `durations.of_exchanges` or
    `durations.joined`; `window`: ns from the run's start; `gaps`: sorted ITL in seconds, where they were kept."""
    counted = rows[rows["counted"]]
    answered = counted[counted["ok"]]
    throughput = rates(rows, window)
    good = meets(answered, objectives) if objectives else None
    tokens = float(answered["output_count"].sum())
    good_tokens_per_s = None
    if good is not None and tokens:
        good_tokens_per_s = throughput.output_tokens_per_s * float(answered.loc[good, "output_count"].sum()) / tokens
    return Sample(
        target=target,
        step=step,
        n=len(counted),
        failed=len(counted) - len(answered),
        window=window,
        values=_values(counted, answered) | {"itl": gaps},
        throughput=throughput,
        good=None if good is None else int(good.sum()),
        good_tokens_per_s=good_tokens_per_s,
        rows=rows,
    )


def _values(counted: pd.DataFrame, answered: pd.DataFrame) -> dict[str, Values]:
    values = {}
    for name in (*DURATIONS, *BRACKETS):
        column = (counted if name in CLIENTS_OWN else answered)[name].to_numpy()
        values[name] = np.sort(column[np.isfinite(column)])
    return values
