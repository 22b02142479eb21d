"""Which plots a run's report holds: their data, from the summary and its samples, and their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

import numpy as np
from markupsafe import Markup

from targets.telemetry import Reading

from ..analysis import leaders, phases, samples
from ..analysis.quantiles import Quantile, Values
from ..analysis.summary import Summary
from ..store.durations import HEADLINES
from ..store.run_folder import Run
from . import plots
from .plots import Curves

PHASES_CAPTION = (
    "Bars are numbered as the rows above; from left to right the phases in the order of the columns. Palest: not "
    "attributed, and the client's own; dotted: queue; solid: prefill; crossed: KV transfer and hand-over."
)
Data = ParamSpec("Data")


@dataclass(frozen=True, slots=True)
class Plot:
    id: str
    svg: Markup
    caption: str


class Figures:
    """The plots of one run, by the part of the page where they stand.

    `numbers`: target -> its number, which gives its colour; `slug` makes the plots' ids unique in the page.
    """

    def __init__(
        self, run: Run, summary: Summary, readings: Sequence[Reading], numbers: Mapping[str, int], slug: str
    ) -> None:
        self._run, self._summary, self._numbers, self._slug = run, summary, numbers, slug
        self.cdfs = [self._cdfs(number, step) for number, step in enumerate(summary.steps)]
        self.load = list(self._load())
        accounts = [(numbers[result.target], result.phases) for result in summary.results]
        self.phases = self._plot("phases", PHASES_CAPTION, plots.phases, accounts, phases.ALL)
        windows = sorted({sample.window for sample in summary.samples.values()})
        caption = "Over the whole run, warm-up included."
        self.timeline = self._plot("timeline", caption, plots.timeline, run.rows, numbers, windows)
        self.trace = self._trace()
        pooled = self._pooled("lateness"), self._pooled("client_lag")
        self.client = self._plot("client", "The client's own part, all counted requests.", plots.client, *pooled)
        self.servers = list(self._servers(readings))

    def _plot(
        self,
        name: str,
        caption: str,
        draw: Callable[Concatenate[str, Data], str],
        *data: Data.args,
        **more: Data.kwargs,
    ) -> Plot:
        name = f"{self._slug}-{name}"
        svg = draw(name.replace("-", " "), *data, **more)
        return Plot(name, Markup(svg), caption)  # drawn by us, holds no outside text

    def _cdfs(self, number: int, step: str) -> Plot:
        caption = (
            f"Cumulative shares{', ' + step if step else ''}; logarithmic time. Dotted: p50 and p99. "
            "A curve that ends below 100 % belongs to an endpoint that failed some."
        )
        return self._plot(f"cdf-{number}", caption, plots.cdfs, self._curves(step, "ttft"), self._curves(step, "tpot"))

    def _curves(self, step: str, metric: str) -> Curves:
        samples = [sample for sample in self._summary.samples.values() if sample.step == step]
        return {self._numbers[sample.target]: (sample.values[metric], sample.failed) for sample in samples}

    def _pooled(self, metric: str) -> Curves:
        """All steps of a target together."""
        parts: dict[int, list[Values]] = {}
        for sample in self._summary.samples.values():
            parts.setdefault(self._numbers[sample.target], []).append(sample.values[metric])
        return {number: (np.sort(np.concatenate(values)), 0) for number, values in parts.items()}

    def _load(self) -> Iterator[Plot]:
        summary, steps = self._summary, self._summary.steps
        if len(steps) > 1:
            medians = {metric: self._medians(metric) for metric in HEADLINES}
            flips = {metric: leaders.flips_of_leads(leaders.leads(summary, metric)) for metric in HEADLINES}
            places = {metric: [steps.index(flip.step) for flip in of_metric] for metric, of_metric in flips.items()}
            loads = [", ".join(part for part in (step, summary.of_step(step)[0].load) if part) for step in steps]
            named = "; ".join(f"step {number + 1}: {load}" for number, load in enumerate(loads))
            caption = f"Medians against load ({named}). A red line: between these steps the lead changes hands."
            yield self._plot("steps", caption, plots.by_step, len(steps), medians, places)
        rows = self._run.rows[self._run.rows["counted"]]
        tables = {
            self._numbers[str(target)]: samples.slices(part, "in_flight")
            for target, part in rows.groupby("target", observed=True)
        }
        caption = (
            "Medians with 95 % intervals against the target's own requests in flight at send, all load steps together: "
            "how an endpoint fares as concurrency rises."
        )
        yield self._plot("in-flight", caption, plots.in_flight, tables)

    def _medians(self, metric: str) -> dict[int, list[Quantile | None]]:
        """A target's number -> its p50 in each step, None where it has no rows there."""
        medians = {(self._numbers[r.target], r.step): r.quantile(metric, 0.5) for r in self._summary.results}
        numbers = sorted({number for number, _ in medians})
        return {number: [medians.get((number, step)) for step in self._summary.steps] for number in numbers}

    def _trace(self) -> Plot:
        """Lengths of one target's rows: the same requests go to all."""
        rows = self._run.rows[self._run.rows["target"] == self._run.rows["target"].iloc[0]]
        timeline = self._run.facts.trace.profile.timeline if self._run.facts.trace else None
        prompts, outputs = (np.sort(rows[name].to_numpy(np.float64)) for name in ("prompt_tokens", "output_tokens"))
        caption = "The requests as planned, before any server saw them."
        counts, step_s = (timeline.counts, timeline.step_s) if timeline else ((), 1.0)
        return self._plot("trace", caption, plots.trace, counts, step_s, prompts, outputs)

    def _servers(self, readings: Sequence[Reading]) -> Iterator[Plot]:
        gauges = phases.series(readings)
        if gauges:
            targets = self._run.facts.targets
            series = [(self._numbers.get(phases.owner(targets, url), 0), of_url) for url, of_url in gauges.items()]
            caption = "Read from the servers' metrics every second, a line a URL in its target's colour."
            yield self._plot("servers", caption, plots.servers, series, phases.GAUGES)
