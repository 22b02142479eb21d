"""summary.json: what a run measured, as numbers. Durations in seconds; vLLM's flat keys in ms, as vLLM has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from targets.exchange import Outcome
from traces.errors import InputError
from traces.files import write_whole

from ..store.digests import METRICS, Digests
from ..store.run_folder import Key, Run
from . import comparison, quantiles, validity
from .comparison import Comparison
from .gates import parse_goodput
from .measuring import brackets, measure
from .result import Result
from .samples import Sample, samples_of
from .validity import Conduct, Evidence, Validity

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which run this is, from its run.json."""

    created: str | None
    version: str | None
    seed: int | None
    salt: str | None
    order: str | None
    ended: str | None
    argv: list[str] | None
    name: str
    folder: str


@dataclass(frozen=True)
class Summary:
    """What a run measured and whether it can be trusted. In summary.json each dataclass is an object of the same
    fields, and infinite or undefined numbers are null.

    `objectives`: metric -> seconds. `digests`: where the t-digests come from. `results`: one for each target and load
    step. `comparison`: each pair of targets in each step.
    """

    format: int
    run: RunIdentity
    validity: Validity
    objectives: dict[str, float]
    digests: str
    results: list[Result]
    comparison: list[Comparison]
    _samples: dict[Key, Sample]  # JSON leaves out what begins with an underscore

    @property
    def samples(self) -> dict[Key, Sample]:
        """What the figures were made from, for gates and plots."""
        return self._samples

    @property
    def steps(self) -> list[str]:
        """The load steps, in the order of the run."""
        return list(dict.fromkeys(result.step for result in self.results))

    def of_step(self, step: str) -> list[Result]:
        return [result for result in self.results if result.step == step]

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def save(run: Run, objectives: Mapping[str, float] | None = None) -> Summary:
    """`summarise`, and writes the run's summary.json, and digests.json where its workers left none that fits."""
    summary, digests = _summarise(run, objectives)
    if digests.origin == "rows":
        digests.save(run.folder / "digests.json")
    write_whole(run.folder / "summary.json", summary.to_json())
    return summary


def summarise(run: Run, objectives: Mapping[str, float] | None = None) -> Summary:
    """The summary of a run read back. `objectives` (metric -> seconds) override the run's own.

    Raises InputError where run.json's objectives can't be read.
    """
    return _summarise(run, objectives)[0]


def _summarise(run: Run, objectives: Mapping[str, float] | None) -> tuple[Summary, Digests]:
    limits = dict(objectives) if objectives is not None else parse_goodput(run.facts.goodput)
    parts = samples_of(run, limits)
    digests = _digests(run, parts)
    summary = Summary(
        format=FORMAT,
        run=_identity(run),
        validity=validity.judge([_evidence(sample) for sample in parts.values()], _conduct(run)),
        objectives=limits,
        digests=f"from the {digests.origin}",
        results=[measure(run, sample, digests, limits) for sample in parts.values()],
        comparison=comparison.of_groups({key: sample.rows for key, sample in parts.items()}),
        _samples=parts,
    )
    return summary, digests


def _identity(run: Run) -> RunIdentity:
    facts, folder = run.facts, str(run.folder)
    if not facts.created:  # a run without run.json
        return RunIdentity(None, None, None, None, None, None, None, run.name, folder)
    argv = list(facts.argv) or None
    return RunIdentity(
        facts.created, facts.version, facts.seed, facts.salt, facts.order, facts.ended, argv, run.name, folder
    )


def _digests(run: Run, parts: Mapping[Key, Sample]) -> Digests:
    """The digests that travelled through Locust where they hold every row, else new ones of the rows."""
    path = run.folder / "digests.json"
    if path.exists():
        try:
            stored = Digests.load(path)
        except InputError:  # the rows are the truth; a damaged digest doesn't stop a report
            stored = Digests()
        recorded = {key: (group.counted, group.failed) for key, group in stored.groups.items()}
        if recorded == {key: (sample.n, sample.failed) for key, sample in parts.items() if sample.n}:
            return stored
    digests = Digests("rows")
    for key, sample in parts.items():
        if sample.n:
            digests.count(*key, sample.n, sample.failed)
            for metric in METRICS:
                digests.add_values(*key, metric, sample.values[metric])
    return digests


def _evidence(sample: Sample) -> Evidence:
    counted, late = sample.counted, sample.values["lateness"]
    read = counted[counted["reads"] > 0]
    own_faults = counted.loc[counted["outcome"] == Outcome.INTERNAL_ERROR.value, "error"]
    return Evidence(
        target=sample.target,
        step=sample.step,
        counted=sample.n,
        brackets=brackets(sample),
        lateness_p99=quantiles.at(late, 0.99) if len(late) else None,
        mean_gap=sample.window_s / sample.n if sample.n else None,
        unstamped_share=float((read["unstamped"] > 0).mean()) if len(read) else 0.0,
        internal_errors=len(own_faults),
        fault=str(own_faults.mode().iloc[0]) if len(own_faults) else "",
        stepped=int(counted["stepped"].sum()),
        duplicates=int(sample.rows.duplicated(["index", "attempt"]).sum()),
    )


def _conduct(run: Run) -> Conduct:
    facts = run.facts
    return Conduct(
        ended=facts.ended,
        lost_workers=[f"{worker.number} ({worker.lost})" for worker in facts.workers if worker.lost],
        clock_offset=max((abs(worker.clock_offset_s or 0.0) for worker in facts.workers), default=0.0),
        clock_steps=sum(len(worker.diagnostics.clock_steps) for worker in facts.workers if worker.diagnostics),
        missing=facts.missing,
        certificate=facts.certificate_exceeded,
        damaged=run.damaged,
        lacking=run.lacking,
    )
