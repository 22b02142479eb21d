"""Does a run meet its gates? A verdict for each gate, target and load step, and the exit code that they give.

A quantile takes failures as +inf. Exit codes: 0 all passed, 1 one failed, 2 not a gate, 3 can't be decided (run
invalid, or too few samples to bound the quantile).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isnan

import numpy as np

from traces.errors import InputError

from ..store.run_folder import Key, Run
from .gates import Gate, no_objectives, parse
from .quantiles import finite
from .samples import Sample
from .summary import Summary, summarise
from .validity import Reason, Status


class Decision(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    TOO_FEW = "too few samples"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer for one target in one step. `figure` (s, 1/s or a share) and the ends of its 95 % interval may be
    inf (unbounded); None where there are none. `n`: the samples behind it."""

    gate: Gate
    target: str
    step: str
    decision: Decision
    figure: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "gate": self.gate.text, "target": self.target, "step": self.step, "result": str(self.decision),
            "figure": None if self.figure is None else finite(self.figure), "unbounded": self.figure == inf,
            "low": None if self.low is None else finite(self.low),
            "high": None if self.high is None else finite(self.high),
            "limit": self.gate.limit, "op": self.gate.op, "n": self.n, "note": self.note,
        }  # fmt: skip


def judge(run: Run | Summary, gates: Sequence[Gate | str]) -> list[Verdict]:
    """Each gate ("ttft p99 < 800ms") on every target and load step of the run that it concerns, in their order.

    Raises InputError for what is no gate, for a target or step that the run lacks, and for a gate on goodput where the
    run (or the summary) has no objectives.
    """
    parsed = [parse(gate) if isinstance(gate, str) else gate for gate in gates]
    summary = run if isinstance(run, Summary) else summarise(run)
    return decide(parsed, summary.samples, summary.validity.reasons)


def decide(gates: Iterable[Gate], samples: Mapping[Key, Sample], reasons: Sequence[Reason] = ()) -> list[Verdict]:
    """Every gate on every target and step that it concerns. `reasons` are the run's validity's: where one makes the run
    invalid, no target that it concerns passes or fails. InputError where a gate concerns none."""
    verdicts = []
    for gate in gates:
        concerned = [s for s in samples.values() if gate.target in ("", s.target) and gate.step in ("", s.step)]
        if not concerned:
            there = ", ".join(f"{target}@{step}" if step else target for target, step in samples)
            raise InputError("no such target or step in this run", where=gate.text, remedy=f"there are {there}")
        verdicts += [verdict(gate, sample) for sample in concerned]
    blamed = {reason.target for reason in reasons if reason.status is Status.INVALID}
    whole = not blamed <= {target for target, _ in samples}  # no target is named, or one that left no rows to judge
    return [replace(v, decision=Decision.INVALID) if whole or v.target in blamed else v for v in verdicts]


def exit_code(verdicts: Sequence[Verdict], status: Status) -> int:
    """0 passed, 1 failed, 3 undecided: what is invalid decides nothing, whatever the figures are."""
    decisions = {verdict.decision for verdict in verdicts}
    if Decision.INVALID in decisions or (status is Status.INVALID and not verdicts):
        return 3
    if Decision.FAIL in decisions:
        return 1
    return 3 if decisions - {Decision.PASS} else 0


def verdict(gate: Gate, sample: Sample) -> Verdict:
    """On one target in one step. InputError where a gate on goodput has no objectives."""
    if gate.metric == "errors":
        return _share(gate, sample, sample.failed)
    if gate.metric == "requests":
        return _plain(gate, sample, sample.throughput.requests_per_s, sample.n)
    if gate.metric == "tokens":
        return _plain(gate, sample, sample.throughput.output_tokens_per_s, sample.n)
    if gate.metric == "goodput":
        if sample.good is None:
            raise no_objectives(gate)
        if gate.unit == "%":
            return _share(gate, sample, sample.good)
        return _plain(gate, sample, sample.goodput or 0.0, sample.n)
    return _quantile(gate, sample, gate.q) if gate.q is not None else _moment(gate, sample)


def _quantile(gate: Gate, sample: Sample, q: float) -> Verdict:
    quantile = sample.quantile(gate.metric, q)
    if not quantile.enough or isnan(quantile.value):
        return _too_few(gate, sample, quantile.n, f"n={quantile.n}, needs {quantile.needs}")
    note = ""
    if quantile.unbounded:
        note = f"{sample.failed_in(gate.metric)} of {quantile.n} failed: no bound"
    elif gate.holds(quantile.low) != gate.holds(quantile.high):
        note = "the limit lies inside the 95 % interval"
    return replace(_plain(gate, sample, quantile.value, quantile.n, note), low=quantile.low, high=quantile.high)


def _moment(gate: Gate, sample: Sample) -> Verdict:
    """Mean and max have no adjusted form: of the answered requests, and the note says how many failed."""
    values, failed = sample.values[gate.metric], sample.failed_in(gate.metric)
    if len(values) < 2:
        return _too_few(gate, sample, len(values), f"n={len(values)}, needs 2")
    figure = float(values[-1] if gate.statistic == "max" else np.mean(values))
    note = f"{failed} failed, not in the {gate.statistic}" if failed else ""
    return _plain(gate, sample, figure, len(values), note)


def _share(gate: Gate, sample: Sample, part: int) -> Verdict:
    return _plain(gate, sample, part / sample.n if sample.n else 0.0, sample.n, f"{part} of {sample.n}")


def _plain(gate: Gate, sample: Sample, figure: float, n: int, note: str = "") -> Verdict:
    if n == 0:
        return _too_few(gate, sample, 0, "no counted requests")
    decision = Decision.PASS if gate.holds(figure) else Decision.FAIL
    return Verdict(gate, sample.target, sample.step, decision, figure, n, note=note)


def _too_few(gate: Gate, sample: Sample, n: int, note: str) -> Verdict:
    return Verdict(gate, sample.target, sample.step, Decision.TOO_FEW, None, n, note=note)
