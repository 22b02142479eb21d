"""summary.json: what a run measured, as numbers. Durations in seconds; vLLM's flat keys in ms, as vLLM has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from targets.exchange import Outcome
from traces.errors import InputError
from traces.files import write_whole

from ..store import run_json
from ..store.digests import METRICS, Digests
from ..store.run_folder import Key, Run
from . import comparison, evidence, page_one, quantiles, validity
from .comparison import Comparison
from .evidence import ServerEvidence
from .gate_grammar import Gate, check_objectives, implied_objectives, parse, parse_goodput
from .gates import Verdict, decide
from .page_one import PageOne
from .results import Result, measure
from .samples import Sample, samples_of
from .steadiness import headroom
from .validity import Evidence, Validity

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Which run this is, from its run.json where it has one. `rounds`: those that count; `lost`: round -> why not;
    `quota_scale`: the share of the load's sessions that was sent, so that the targets' quotas admit it."""

    created: str | None
    version: str | None
    seed: int | None
    salt: str | None
    order: str | None
    ended: str | None
    argv: tuple[str, ...] | None
    name: str
    folder: str
    rounds: tuple[int, ...]
    lost: dict[str, str]
    quota_scale: float = 1.0


@dataclass(frozen=True)
class Summary:
    """What a run measured and whether it can be trusted. In summary.json each dataclass is an object of the same
    fields, and infinite or undefined numbers are null. `objectives`: metric -> seconds. `digests`: where the t-digests
    come from. `results`: one for each target and load step. `comparison`: each pair of targets in each step.
    `evidence`: what the servers said of themselves, and what changed of it; `page_one`: what of all this a reader needs
    first."""

    format: int
    run: RunIdentity
    validity: Validity
    objectives: dict[str, float]
    digests: str
    results: list[Result]
    comparison: list[Comparison]
    evidence: ServerEvidence
    page_one: PageOne
    _samples: dict[Key, Sample]  # JSON leaves out what begins with an underscore
    _digests: Digests
    _looks: int = 1  # how often the verdicts of a series are looked at, by who ends it at the first that decide

    @property
    def samples(self) -> dict[Key, Sample]:
        return self._samples

    @property
    def steps(self) -> list[str]:
        return list(dict.fromkeys(result.step for result in self.results))

    def of_step(self, step: str) -> list[Result]:
        return [result for result in self.results if result.step == step]

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)

    def save(self, folder: Path | str) -> None:
        """Writes summary.json, and digests.json where the workers left none that fits."""
        folder = Path(folder)
        if self._digests.origin == "rows":
            self._digests.save(folder / "digests.json")
        write_whole(folder / "summary.json", self.to_json())


def save(run: Run, objectives: Mapping[str, float] | None = None) -> Summary:
    """`summarise`, and writes the summary into the run's folder."""
    summary = summarise(run, objectives)
    summary.save(run.folder)
    return summary


def summarise(run: Run, objectives: Mapping[str, float] | None = None) -> Summary:
    """The summary of a run read back. `objectives` (metric -> seconds) override the run's own, which its gates imply
    where it has none. Raises InputError for an objective that there is not, or that can't be read in run.json."""
    limits = _own_objectives(run) if objectives is None else dict(objectives)
    check_objectives(limits)
    samples = samples_of(run, limits)
    digests = _digests(run, samples)
    results = [measure(run, sample, digests, limits, headroom(sample, samples.values())) for sample in samples.values()]
    clients = [_evidence(sample, result) for sample, result in zip(samples.values(), results, strict=True)]
    judged, servers = validity.judge(clients, run), evidence.gather(run)
    pairs = comparison.of_samples(samples)
    verdicts, undecidable = _own_verdicts(run, samples, judged)
    return Summary(
        format=FORMAT, run=_identity(run), validity=judged, objectives=limits, digests=f"from the {digests.origin}",
        results=results, comparison=pairs, evidence=servers,
        page_one=page_one.page_one(run, samples.values(), results, pairs, verdicts, judged, servers, undecidable),
        _samples=samples, _digests=digests, _looks=_looks(run),
    )  # fmt: skip


def _own_verdicts(run: Run, samples: Mapping[Key, Sample], judged: Validity) -> tuple[list[Verdict], str]:
    """Those of the run's own gates; none, and why, where they can't be read or concern nothing."""
    try:
        return decide(own_gates(run), samples, judged.reasons, looks=_looks(run)), ""
    except InputError as error:
        return [], str(error)


def _looks(run: Run) -> int:
    """After each round, where the series ends as soon as its gates are decided."""
    return run.series.planned if run.series and run.series.stop_early else 1


def own_gates(run: Run) -> list[Gate]:
    """The gates that the run was started with. Raises InputError with run.json's field."""
    return [parse(text, _field(run, "slo")) for text in run.facts.slo]


def _own_objectives(run: Run) -> dict[str, float]:
    named = parse_goodput(run.facts.goodput, _field(run, "goodput"))
    return named or implied_objectives(own_gates(run))


def _field(run: Run, name: str) -> str:
    return f"{run.place / run_json.FILE}, field {name}"


def judge(run: Run | Summary, gates: Sequence[Gate | str] | Gate | str) -> list[Verdict]:
    """Each gate ("ttft p99 < 800ms") on every target and load step of the run that it concerns, in their order. Raises
    InputError for what is no gate, for a target or step that the run lacks, and for a gate on goodput where the run (or
    the summary) has no objectives."""
    listed = [gates] if isinstance(gates, Gate | str) else gates
    parsed = [parse(gate) if isinstance(gate, str) else gate for gate in listed]
    summary = run if isinstance(run, Summary) else summarise(run)
    return decide(parsed, summary.samples, summary.validity.reasons, looks=summary._looks)


def _identity(run: Run) -> RunIdentity:
    known = vars(run.facts) if run.facts.created else {}  # nothing is, without a run.json
    facts = {name: known.get(name) for name in ("created", "version", "seed", "salt", "order", "ended")}
    return RunIdentity(
        **facts, argv=known.get("argv") or None, name=run.name, folder=str(run.place),
        rounds=tuple(part.round for part in run.parts),
        lost={str(number): why for number, why in run.lost.items()}, quota_scale=run.facts.quota_scale,
    )  # fmt: skip


def _digests(run: Run, samples: Mapping[Key, Sample]) -> Digests:
    """The digests that travelled through Locust where they hold every row, else new ones of the rows."""
    stored, paths = Digests(), [part.folder / "digests.json" for part in run.parts]
    if all(path.exists() for path in paths):
        with suppress(InputError):  # the rows are the truth; a damaged digest doesn't stop a report
            for each in map(Digests.load, paths):
                stored.merge(each.state())
                stored.origin = "rows" if each.origin == "rows" else stored.origin
        recorded = {key: (group.counted, group.failed) for key, group in stored.groups.items()}
        if recorded == {key: (sample.n, sample.failed) for key, sample in samples.items() if sample.n}:
            return stored
    digests = Digests("rows")
    for key, sample in samples.items():
        if sample.n:
            digests.count(*key, sample.n, sample.failed)
            for metric in METRICS:
                digests.add_values(*key, metric, sample.values[metric])
    return digests


def _evidence(sample: Sample, result: Result) -> Evidence:
    counted, late = sample.counted, sample.values["lateness"]
    own_faults = counted.loc[counted["outcome"] == Outcome.INTERNAL_ERROR.value, "error"]
    return Evidence(
        target=sample.target, step=sample.step, counted=sample.n, brackets=result.client.brackets,
        lateness_p99=quantiles.at(late, 0.99) if len(late) else None,
        mean_gap=sample.window_s / sample.n if sample.n else None, unstamped_share=result.client.unstamped or 0.0,
        internal_errors=len(own_faults), fault=str(own_faults.mode().iloc[0]) if len(own_faults) else "",
        stepped=int(counted["stepped"].sum()),
        duplicates=int(sample.rows.duplicated(["round", "index", "attempt"]).sum()),
    )  # fmt: skip
