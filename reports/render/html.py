"""report.html: one self-contained page. No script, no network; every string from outside is escaped by the template.

The page is Jinja2 with autoescape on; only the plots (ours) and the style sheet are marked safe. A
Content-Security-Policy forbids the page to load or run anything, whatever a server's text may have tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from traces.errors import InputError
from traces.files import write_whole
from traces.typed_json import to_plain

from .. import number_format
from ..analysis import comparison, leaders, phases, quantiles, verdicts
from ..analysis.phases import SERVER, Part
from ..analysis.results import Result
from ..analysis.samples import Slice
from ..analysis.summary import Summary
from ..store.run_folder import Run
from . import findings, pages
from .figures import Figures

SLICES = (
    ("prompt_tokens", "Prompt tokens (as the trace asks)"),
    ("output_count", "Output tokens (as given; answered requests only)"),
    ("in_flight", "The target's requests in flight at send"),
)
LEAST = quantiles.needed(0.5)
SHOWN = (0.5, 0.9, 0.99, 0.999)
HIDDEN = ("api_key_env", "api_key_file", "headers")  # names of secrets say nothing to a reader
NOTHING: tuple[object, ...] = (None, "", [], (), {}, False)  # values that are not shown
Pairs = list[tuple[str, str]]


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
        self.notes = list(findings.notes(summary))
        self.targets = [name for name in numbers if any(result.target == name for result in results)]
        self.standing = _standing(run, numbers)
        self.verdicts = verdicts.judge(summary, facts.slo)
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
