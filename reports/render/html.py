"""report.html: one self-contained page. No script, no network; every string from outside is escaped by the template.

The page is Jinja2 with autoescape on; only the plots (ours) and the style sheet are marked safe. A
Content-Security-Policy forbids the page to load or run anything, whatever a server's text may have tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec

import numpy as np
from markupsafe import Markup

from targets.telemetry import Reading
from traces.errors import InputError
from traces.files import write_whole
from traces.typed_json import to_plain

from .. import number_format
from ..analysis import comparison, leaders, phases, quantiles, samples
from ..analysis.phases import SERVER, Part
from ..analysis.quantiles import Quantile, Values
from ..analysis.results import Result
from ..analysis.samples import Slice
from ..analysis.summary import Summary, judge
from ..store.durations import HEADLINES
from ..store.run_folder import Run
from . import findings, pages, plots
from .plots import Curves

SLICES = (
    ("prompt_tokens", "Prompt tokens (as the trace asks)"),
    ("output_count", "Output tokens (as given; answered requests only)"),
    ("in_flight", "The target's requests in flight at send"),
)
LEAST = quantiles.needed(0.5)
SHOWN = (0.5, 0.9, 0.99, 0.999)
HIDDEN = ("api_key_env", "api_key_file", "headers")  # names of secrets say nothing to a reader
NOTHING: tuple[object, ...] = (None, "", [], (), {}, False)  # values that are not shown
PHASES_CAPTION = (
    "Bars are numbered as the rows above; from left to right the phases in the order of the columns. Palest: not "
    "attributed, and the client's own; dotted: queue; solid: prefill; crossed: KV transfer and hand-over."
)
Pairs = list[tuple[str, str]]
Data = ParamSpec("Data")


def page(runs: Sequence[Run], summaries: Sequence[Summary], out: Path | str | None = None) -> Path:
    """Writes one report over all runs; by default report.html in the first run's folder."""
    path = Path(out) if out is not None else runs[0].folder / "report.html"
    if path.is_dir():
        path /= "report.html"
    write_whole(path, render(runs, summaries).encode(errors="replace"))
    return path


def render(runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    """The page's text."""
    names = dict.fromkeys(result.target for summary in summaries for result in summary.results)
    numbers = {name: number for number, name in enumerate(names)}
    return pages.render(
        "report.html.j2",
        title=" and ".join(run.name for run in runs),
        numbers=numbers,
        overview=summaries if len(summaries) > 1 else [],
        across=_across(runs),
        headings=findings.COMPARISON_HEADINGS,
        sections=[
            Section(run, summary, numbers, f"run{number}")
            for number, (run, summary) in enumerate(zip(runs, summaries, strict=True))
        ],
        shown=SHOWN,
        labels=[number_format.label(q) for q in SHOWN],
        least=LEAST,
        figure=findings.figure,
        bounds=findings.bounds,
    )


def _across(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The first run against each later one, request by request, where they replayed the same trace."""
    rows: list[tuple[str, ...]] = []
    for later in runs[1:]:
        try:
            rows += findings.comparison_rows(comparison.of_runs(runs[0], later))
        except InputError:  # nothing to pair: the overview stands alone
            continue
    return rows


@dataclass(frozen=True, slots=True)
class Row:
    """A slice beside those of other targets and load steps."""

    target: str
    step: str
    slice: Slice


class Section:
    """What the page shows of one run: the template reads these attributes."""

    def __init__(self, run: Run, summary: Summary, numbers: Mapping[str, int], slug: str) -> None:
        facts, results = run.facts, summary.results
        readings = phases.readings(run.folder)
        self.summary = summary
        self.simulated = facts.simulated
        self.trace = (facts.trace.name or facts.trace.source) if facts.trace else ""
        self.causes = findings.causes(summary.validity)
        self.leads = leaders.matrix(summary)
        self.alarms = list(findings.alarms(summary))
        self.sentences = findings.sentences(summary)
        self.notes = findings.notes(summary)
        self.targets = [name for name in numbers if any(result.target == name for result in results)]
        self.standing = _standing(run, numbers)
        self.verdicts = judge(summary, facts.slo)
        self.steps = [(step, summary.of_step(step)) for step in summary.steps]
        self.comparison = list(findings.comparison_rows(summary.comparison))
        self.parts = [name for name in phases.ALL if any(_part(result, name) for result in results)]
        self.costs = [result for result in results if result.cost]
        self.slices = [(heading, list(_matched(summary, name))) for name, heading in SLICES]
        self.server = [name for name in SERVER if any(result.server[name] for result in results)]
        self.server_phases = phases.phase_means(run, readings)
        self.round_trips = phases.round_trips(run, readings)
        self.failed_readings = phases.failures(readings)
        self.plots = Figures(run, summary, readings, numbers, slug)
        self.workers = _workers(run)
        self.profile = list(_profile(run))
        self.configured = list(_targets(run))
        self.configuration = list(_configuration(run))

    @property
    def several(self) -> bool:
        """Load steps."""
        return len(self.steps) > 1

    def best(self, result: Result, metric: str, q: float) -> bool:
        return findings.is_best(self.summary, result, metric, q)

    def aligned(self, result: Result) -> list[Part | None]:
        """The parts of its time in the order of the columns."""
        return [_part(result, name) for name in self.parts]


def _part(result: Result, name: str) -> Part | None:
    return next((part for part in result.phases if part.phase == name), None)


def _matched(summary: Summary, name: str) -> Iterator[tuple[str, list[Row]]]:
    """Each bucket with a row for each step and target, like beside like, without those that bound no median."""
    buckets: dict[int, list[Row]] = {}
    for step in summary.steps:
        for result in summary.of_step(step):
            for part in result.slices[name]:
                if part.n >= LEAST:
                    buckets.setdefault(part.low, []).append(Row(result.target, step, part))
    for _, rows in sorted(buckets.items()):
        yield rows[0].slice.bucket, rows


def _standing(run: Run, names: Mapping[str, int]) -> dict[str, str]:
    """What each target is: the standing of a simulated endpoint's figures must meet the eye beside its name."""
    targets = {target.name: target for target in run.facts.targets}
    standing = dict.fromkeys(names, "")
    for name in targets.keys() & names.keys():
        target = targets[name]
        simulated = target.embedded and not target.description.startswith("simulated")
        parts = ["simulated" if simulated else "", target.description, target.standing]
        standing[name] = ", ".join(part for part in parts if part)
    return standing


def _workers(run: Run) -> list[tuple[str, list[str]]]:
    """A row a fact, a column a worker."""
    workers = [dict(flat(to_plain(worker))) for worker in run.facts.workers]
    names = list(dict.fromkeys(name for worker in workers for name in worker))
    return [(name.removeprefix("diagnostics "), [worker.get(name, "") for worker in workers]) for name in names]


def _profile(run: Run) -> Iterator[tuple[str, str]]:
    """The trace's facts without the timeline, which is drawn."""
    trace = to_plain(run.facts.trace) if run.facts.trace else {}
    profile = trace.pop("profile", {})
    yield from flat(trace)
    yield from flat({name: value for name, value in profile.items() if name != "timeline"})


def _targets(run: Run) -> Iterator[tuple[str, Pairs]]:
    for target in run.facts.targets:
        facts = to_plain(target)
        shown = {name: facts[name] for name in facts if name not in (*HIDDEN, "name") and facts[name] not in NOTHING}
        yield target.name, list(flat(shown))


def _configuration(run: Run) -> Iterator[tuple[str, str]]:
    facts = run.facts
    if facts.argv:
        yield "command", " ".join(facts.argv)
    skipped = ("argv", "targets", "trace", "workers", "phases", "missing_requests", "slo")
    yield from flat({name: value for name, value in to_plain(facts).items() if name not in skipped})
    for slo in facts.slo:
        yield "slo", slo


def flat(facts: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (name, text) pairs; long lists are cut."""
    if isinstance(facts, Mapping):
        for name, value in facts.items():
            yield from flat(value, f"{prefix} {name}".strip().replace("_", " "))
    elif isinstance(facts, (list, tuple)):
        shown = ", ".join(str(part) for part in facts[:12]) + (", ..." if len(facts) > 12 else "")
        yield prefix, shown or "-"
    elif isinstance(facts, float):
        yield prefix, f"{facts:,.6g}"
    else:
        yield prefix, "-" if facts is None else str(facts)


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
            flips = {metric: leaders.flips(leaders.leads(summary, metric)) for metric in HEADLINES}
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
