"""Our pages: report.html, self-contained, of one run or several; and `render`, which makes planning.html too.

The pages are Jinja2 with autoescape on; only the plots (ours) and the style sheet are marked safe. There is no script,
nothing is loaded from anywhere, and a Content-Security-Policy forbids the page to load or run anything, whatever a
server's text may have tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from traces.errors import InputError
from traces.files import write_whole
from traces.request import NS_PER_S
from traces.typed_json import to_plain

from .. import number_format
from ..analysis import comparison, leaders, phases, quantiles
from ..analysis.results import Result
from ..analysis.samples import Sample, Slice
from ..analysis.summary import Summary
from ..store.run_folder import Run
from . import findings, plots
from . import page_one as front

SLICES = (
    ("prompt_tokens", "Prompt tokens (as the trace asks)"),
    ("output_count", "Output tokens (as given; answered requests only)"),
    ("in_flight", "The target's requests in flight at send"),
)
LEAST = quantiles.needed(0.5)
SHOWN = (0.5, 0.9, 0.99, 0.999)
HIDDEN = ("api_key_env", "api_key_file", "headers")  # names of secrets say nothing to a reader
SIGNS = {"pass": "✓", "fail": "✗", "no verdict": "?", "invalid": "⚠", "": "–"}  # so that colour isn't the only one
NOTHING: tuple[object, ...] = (None, "", [], (), {}, False)  # values that are not shown
FIGURES: tuple[Callable[..., str], ...] = (
    number_format.ms, number_format.share, number_format.rate, number_format.dollars, number_format.label,
    findings.quantile, findings.interval, findings.lacking, findings.failures, findings.figure, findings.bounds,
    findings.where,
)  # fmt: skip
FILTERS: dict[str, Callable[..., str]] = {
    **{function.__name__: function for function in FIGURES},
    "off": lambda value: "-" if value is None else "< 0.01%" if abs(value) < 1e-4 else f"{value:+.2%}",
    "count": lambda value: "-" if value is None else f"{value:,.0f}",
}


def render(template: str, **values: Any) -> str:
    loader = PackageLoader("reports", "assets")
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    env.filters |= FILTERS
    css = Markup(loader.get_source(env, "report.css")[0])
    return env.get_template(template).render(css=css, colours=plots.COLOURS, **values)


def page(runs: Sequence[Run], summaries: Sequence[Summary], out: Path | str | None = None) -> Path:
    """Writes one report over all runs; by default report.html in the first run's folder, or, of a bundle, beside it."""
    bundle = runs[0].bundle
    folder = Path(out) if out is not None else bundle.with_suffix(".html") if bundle else runs[0].folder
    path = folder / "report.html" if folder.is_dir() else folder
    names = dict.fromkeys(result.target for summary in summaries for result in summary.results)
    numbers = {name: number for number, name in enumerate(names)}
    text = render(
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
        signs=SIGNS,
        least=LEAST,
        is_best=findings.is_best,
    )
    write_whole(path, text.encode(errors="replace"))
    return path


def _across(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The first run against each later one, request by request, where they replayed the same trace."""
    rows: list[tuple[str, ...]] = []
    for later in runs[1:]:
        with suppress(InputError):  # nothing to pair: the overview stands alone
            rows += findings.comparison_rows(comparison.of_runs(runs[0], later))
    return rows


class Section:
    """What the page shows of one run: the template reads these attributes. `numbers`: target -> its number, which gives
    its colour; `slug` makes the plots' ids unique in the page."""

    def __init__(self, run: Run, summary: Summary, numbers: Mapping[str, int], slug: str) -> None:
        results, steps = summary.results, summary.steps
        readings = phases.readings(run.folder)
        self.run, self.summary = run, summary
        self.causes = findings.causes(summary.validity)
        self.leads = leaders.matrix(summary)
        self.alarms = list(findings.alarms(summary))
        self.sentences = findings.sentences(summary)
        self.notes = findings.notes(summary)
        self.targets = _standing(run, [name for name in numbers if any(result.target == name for result in results)])
        self.verdicts = summary.page_one.verdicts
        self.decisive, self.rounds = front.load(summary.page_one), len(run.parts)
        self.figures = front.lines(summary.page_one)
        self.first = list(_first(run, summary))
        self.steps = [(step, summary.of_step(step)) for step in steps]
        self.several = len(steps) > 1
        self.comparison = list(findings.comparison_rows(summary.comparison))
        self.accounts = [(result, {part.phase: part for part in result.phases}) for result in results]
        self.parts = [name for name in phases.ALL if any(name in account for _, account in self.accounts)]
        self.slices = [(heading, _matched(summary, name)) for name, heading in SLICES]
        self.server = [name for name in phases.SERVER if any(result.server[name] for result in results)]
        self.server_phases = phases.phase_means(run, readings)
        self.round_trips = phases.round_trips(run, readings)
        self.failed_readings = phases.failures(readings)
        self.workers = _workers(run)
        self.profile = list(_profile(run))
        self.configured = list(_targets(run))
        self.configuration = list(_configuration(run))
        self.cdfs = [
            plots.cdfs(f"{slug}-cdf-{n}", summary, step, numbers, self.verdicts) for n, step in enumerate(steps)
        ]
        self.load = [plots.by_step(f"{slug}-steps", summary, numbers)] if self.several else []
        self.load.append(plots.in_flight(f"{slug}-in-flight", run.rows, numbers))
        self.bars = plots.accounts(f"{slug}-phases", results, numbers)
        windows = {sample.window for sample in summary.samples.values()}
        self.timeline = plots.timeline(f"{slug}-timeline", run.rows, numbers, sorted(windows))
        gauges = phases.series(readings)
        self.gauges = [plots.servers(f"{slug}-servers", run, gauges, numbers)] if gauges else []
        self.client = plots.client(f"{slug}-client", summary, numbers)
        self.trace = plots.trace(f"{slug}-trace", run)


def _first(run: Run, summary: Summary) -> Iterator[tuple[str, str]]:
    """What was asked, under which load, at what cost."""
    for target in run.facts.targets:
        where = target.url or ", ".join((*target.prefill, *target.decode)) or target.description
        yield f"endpoint {target.name}", ", ".join(part for part in (where, target.model, target.endpoint_type) if part)
    for step in summary.steps:
        first = summary.of_step(step)[0]
        load, rounds = first.load, summary.samples[first.target, step].rounds
        counted = f"counted for {f'{len(rounds)} x ' if len(rounds) > 1 else ''}{_seconds(rounds[0]):,.0f} s"
        yield f"load {step}", ", ".join(part for part in (load, counted) if part)
    costs: dict[str, list[str]] = {}
    for result in summary.results:
        if result.cost and result.cost.at_this_load:
            cost = number_format.dollars(result.cost.at_this_load.per_million_output)
            costs.setdefault(result.target, []).append(f"{cost} at {result.step}" if result.step else cost)
    for name, of_steps in costs.items():
        yield f"cost {name}", f"{', '.join(of_steps)} per million output tokens"


def _seconds(sample: Sample) -> float:
    return (sample.window[1] - sample.window[0]) / NS_PER_S


def _matched(summary: Summary, name: str) -> list[tuple[str, list[tuple[Result, Slice]]]]:
    """Each bucket with a row for each step and target, like beside like, without those that bound no median."""
    buckets: dict[tuple[int, str], list[tuple[Result, Slice]]] = {}
    for step in summary.steps:
        for result in summary.of_step(step):
            for part in result.slices[name]:
                if part.n >= LEAST:
                    buckets.setdefault((part.low, part.bucket), []).append((result, part))
    return [(bucket, buckets[low, bucket]) for low, bucket in sorted(buckets)]


def _standing(run: Run, names: Sequence[str]) -> dict[str, str]:
    """What each target is: the standing of a simulated endpoint's figures must meet the eye beside its name."""
    standing = dict.fromkeys(names, "")
    for target in run.facts.targets:
        if target.name in standing:
            simulated = target.embedded and not target.description.startswith("simulated")
            parts = ("simulated" if simulated else "", target.description, target.standing)
            standing[target.name] = ", ".join(part for part in parts if part)
    return standing


def _workers(run: Run) -> list[tuple[str, list[str]]]:
    """A row a fact, a column a worker."""
    workers = [dict(flat(to_plain(worker))) for worker in run.facts.workers]
    names = dict.fromkeys(name for worker in workers for name in worker)
    return [(name.removeprefix("diagnostics "), [worker.get(name, "") for worker in workers]) for name in names]


def _profile(run: Run) -> Iterator[tuple[str, str]]:
    """The trace's facts without the timeline, which is drawn."""
    trace = to_plain(run.facts.trace) if run.facts.trace else {}
    profile = trace.pop("profile", {})
    yield from flat(trace)
    yield from flat({name: value for name, value in profile.items() if name != "timeline"})


def _targets(run: Run) -> Iterator[tuple[str, list[tuple[str, str]]]]:
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
