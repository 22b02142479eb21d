"""Gates' verdicts with their exit code; how a gate is written: `gate_grammar`. Pure.

"ttft p99 < 800ms" asks whether fewer than 1 % of the requests, failures included, take 800 ms or longer: it passes
where the upper one-sided 95 % bound of that share (`shares.share`) is below 1 %, fails where the lower one is above,
and else there is no verdict. Shares are decided likewise; rates, means and maxima have no bounds and are compared as
they are. The times of an overloaded target depend on the run's length, as does the tail of a drifting one: they may
fail a gate, and pass none. Nor does a tail over rounds without headroom, for calm rounds pick themselves
(`steadiness`); one that passes in a single window passes inside this run.

Exit codes: 0 all passed, 1 one failed, 2 not a gate, 3 no verdict (or the run is invalid). A series that ends as soon
as every gate is `decided` looks after each round, and its bounds are stricter for it (`looks`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, inf, isfinite, isnan, nan
from typing import TYPE_CHECKING, TypeVar

from traces.errors import InputError

from .. import number_format
from . import shares
from .firmness import calm
from .gate_grammar import LATENCIES, TAIL, Gate, no_objectives
from .quantiles import finite
from .samples import Sample, sliced
from .shares import Share
from .steadiness import State, headroom
from .validity import Reason, Status

if TYPE_CHECKING:
    from ..store.run_folder import Key


class Decision(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    NO_VERDICT = "no verdict"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer for one target in one step. `figure` (s, 1/s or a share) and the ends of its 95 % interval may be
    inf (unbounded); None where there are none. `n`: the samples behind it, and `effective` the independent ones that
    they are worth; `rounds`: of how many. `more_s`: further seconds of the same load that should decide it (nan: too
    little is known to say, inf: the figure is too near to the limit), and as whole rounds `more_rounds`."""

    gate: Gate
    target: str
    step: str
    decision: Decision
    figure: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""
    more_s: float | None = None
    effective: float | None = None
    rounds: int = 1
    more_rounds: int | None = None

    def as_json(self) -> dict[str, object]:
        """The verdict as `phaseload gate --json` prints it; an infinite figure is null, and `unbounded`."""
        return {
            "gate": self.gate.text, "name": self.gate.name, "target": self.target, "step": self.step,
            "result": str(self.decision), "figure": finite(self.figure), "unbounded": self.figure == inf,
            "low": finite(self.low), "high": finite(self.high), "limit": self.gate.limit, "op": self.gate.op,
            "n": self.n, "effective": finite(self.effective), "note": self.note, "more_s": finite(self.more_s),
            "rounds": self.rounds, "more_rounds": self.more_rounds,
        }  # fmt: skip


V = TypeVar("V", bound=Verdict)


def decide(
    gates: Iterable[Gate], samples: Mapping[Key, Sample], reasons: Sequence[Reason] = (), *, looks: int = 1
) -> list[Verdict]:
    """Every gate on every target and step that it concerns. `reasons` are the run's validity's: where one makes the run
    invalid, no target that it concerns passes or fails. `looks`: how often the verdicts are looked at, at most, by one
    who stops at the first that decide. InputError where a gate concerns none."""
    verdicts = []
    for gate in gates:
        concerned = [s for s in samples.values() if gate.target in ("", s.target) and gate.step in ("", s.step)]
        if not concerned:
            there = ", ".join(f"{target}@{step}" if step else target for target, step in samples)
            raise InputError("no such target or step in this run", where=gate.text, remedy=f"there are {there}")
        verdicts += [verdict(gate, sample, shares.level(looks), samples.values()) for sample in concerned]
    return withheld(verdicts, {target for target, _ in samples}, reasons)


def withheld(verdicts: Iterable[V], targets: Collection[str], reasons: Sequence[Reason]) -> list[V]:
    """INVALID instead of those that an invalid run's reasons concern; `targets`: all that have rows."""
    blamed = {reason.target for reason in reasons if reason.status is Status.INVALID}
    whole = not blamed <= set(targets)  # no target is named, or one that left no rows to judge
    return [replace(v, decision=Decision.INVALID) if whole or v.target in blamed else v for v in verdicts]


def together(verdicts: Sequence[Verdict], status: Status) -> Decision:
    """What all of them come to."""
    if any(verdict.decision is Decision.INVALID for verdict in verdicts):
        return Decision.INVALID
    return {0: Decision.PASS, 1: Decision.FAIL}.get(exit_code(verdicts, status), Decision.NO_VERDICT)


def decided(verdicts: Iterable[Verdict]) -> bool:
    """Is every gate? What is invalid isn't: another round may be valid."""
    return all(verdict.decision in (Decision.PASS, Decision.FAIL) for verdict in verdicts)


def exit_code(verdicts: Sequence[Verdict], status: Status) -> int:
    """0 passed, 1 failed, 3 undecided: what is invalid decides nothing, whatever the figures are."""
    decisions = {verdict.decision for verdict in verdicts}
    if Decision.INVALID in decisions or (status is Status.INVALID and not verdicts):
        return 3
    if Decision.FAIL in decisions:
        return 1
    return 3 if decisions - {Decision.PASS} else 0


def verdict(gate: Gate, sample: Sample, level: float = shares.level(), samples: Iterable[Sample] = ()) -> Verdict:
    """On one target in one step, with bounds of this `level`; `samples`: those of all steps. InputError where a gate on
    goodput has no objectives."""
    if gate.metric == "goodput" and sample.good is None:
        raise no_objectives(gate)
    found = _measured(gate, sample, level)
    return _steadied(found, sample, samples) if gate.metric in LATENCIES or gate.metric == "goodput" else found


def _steadied(found: Verdict, sample: Sample, samples: Iterable[Sample]) -> Verdict:
    """The verdict as far as the target's state lets it be one."""
    state, gate = sample.steadiness, found.gate
    passes, tail = found.decision is Decision.PASS, gate.q is not None and gate.q >= TAIL
    doubt = ""
    if state.overloaded:
        doubt = f"overloaded: {state.why}"
    elif passes and tail and state.state is State.DRIFTING:
        doubt = f"drifting: {state.why}"
    elif tail and len(sample.rounds) > 1 and found.n and found.decision is not Decision.FAIL:
        doubt = calm(sample.window_s / len(sample.rounds), headroom(sample, samples))
    elif passes and tail:
        return _noted(found, "inside this run")
    if doubt and passes:
        found = replace(found, decision=Decision.NO_VERDICT)
    return _noted(found, doubt)


def _noted(found: Verdict, note: str) -> Verdict:
    return replace(found, note="; ".join(filter(None, (found.note, note))))


def _measured(gate: Gate, sample: Sample, level: float) -> Verdict:
    if gate.where:
        return _on_slice(gate, sample, level)
    if not sample.n:
        return _verdict(gate, sample, None, 0, "no counted requests")
    if gate.metric in LATENCIES:
        return _moment(gate, sample) if gate.q is None else _quantile(gate, sample, gate.q, level)
    if gate.unit == "%":
        return _share(gate, sample, level)
    throughput = sample.throughput
    rates = {"requests": throughput.requests_per_s, "tokens": throughput.output_tokens_per_s, "goodput": sample.goodput}
    return _verdict(gate, sample, rates[gate.metric] or 0.0, sample.n)


def _on_slice(gate: Gate, sample: Sample, level: float) -> Verdict:
    """A slice's requests are a sample of their own, with an effective size of its own."""
    of_slice = _measured(replace(gate, where=()), sliced(sample, gate.where), level)
    by_load = any(condition.field == "in_flight" for condition in gate.where)
    never_sent = int(sample.counted["in_flight"].isna().sum()) if by_load else 0
    note = f"{never_sent:,} were never sent, and are in no slice" if never_sent else ""
    return _noted(replace(of_slice, gate=gate), note)


def _quantile(gate: Gate, sample: Sample, q: float, level: float) -> Verdict:
    """A quantile keeps the limit where the share of requests beyond it is small enough: that share has bounds."""
    row = sample.quantile(gate.metric, q)
    if not row.enough or isnan(row.value):
        return _verdict(gate, sample, None, row.n, f"n={row.n}, needs {row.needs}")
    if gate.metric == "itl":
        return _verdict(gate, sample, row.value, row.n, "of this run: gaps have no interval")
    ordered = sample.ordered[gate.metric]
    share = shares.share(ordered.beyond(gate.limit, inclusive=gate.op in ("<", ">=")), ordered.sizes, ordered, level)
    note = f"{sample.failed_in(gate.metric)} of {row.n} failed: no bound" if row.unbounded else ""
    interval = () if isnan(row.low) else (row.low, row.high)
    return _decided(_verdict(gate, sample, row.value, row.n, note, *interval), share, 1 - q, sample)


def _share(gate: Gate, sample: Sample, level: float) -> Verdict:
    e2e = sample.ordered["e2e"]
    part = e2e.failed if gate.metric == "errors" or sample.good_in is None else sample.good_in
    share = shares.share(part, sample.sizes, None if gate.metric == "errors" else e2e, level)
    verdict = _verdict(gate, sample, share.value, sample.n, f"{part.sum()} of {sample.n}", share.low, share.high)
    return _decided(verdict, share, gate.limit, sample)


def _decided(verdict: Verdict, share: Share, limit: float, sample: Sample) -> Verdict:
    """PASS or FAIL where a one-sided bound of the share is on that side of the limit; else NO VERDICT, and the further
    seconds (or rounds) that should decide it."""
    verdict = replace(verdict, effective=share.effective)
    if side := share.side(limit):
        small = verdict.gate.op.startswith("<")
        return replace(verdict, decision=Decision.PASS if (side < 0) == small else Decision.FAIL)
    more, rounds = share.more(limit), len(sample.rounds)
    known = isfinite(more)
    more_rounds = ceil(more * rounds) if rounds > 1 and known else None
    if more == inf:
        remedy = "the limit is too near to tell"
    elif rounds > 1:
        remedy = _further(known, "rounds", ceil((more if known else share.least(limit)) * rounds))
    else:
        remedy = _further(known, "s", (more if known else share.least(limit)) * sample.window_s)
    undecided = _noted(replace(verdict, decision=Decision.NO_VERDICT), f"worth {share.effective:,.0f}: {remedy}")
    seconds = nan if isnan(more) else more * sample.window_s  # the one nan: equal verdicts are equal
    return replace(undecided, more_s=seconds, more_rounds=more_rounds)


def _further(known: bool, unit: str, amount: float) -> str:
    """`known`: so much should decide; else nothing is known with less."""
    text = number_format.period(amount) if unit == "s" else f"{amount:,.0f} round{'s' * (amount > 1)}"
    return f"run {'about' if known else 'at least'} {text} more"


def _moment(gate: Gate, sample: Sample) -> Verdict:
    """Mean and max have no adjusted form: of the answered requests, and the note says how many failed."""
    values, failed = sample.values[gate.metric], sample.failed_in(gate.metric)
    if len(values) < 2:
        return _verdict(gate, sample, None, len(values), f"n={len(values)}, needs 2")
    figure = float(values[-1] if gate.statistic == "max" else values.mean())
    note = f"{failed} failed, not in the {gate.statistic}" if failed else ""
    return _verdict(gate, sample, figure, len(values), note)


def _verdict(gate: Gate, sample: Sample, figure: float | None, n: int, note: str = "", *interval: float) -> Verdict:
    """Of this run as it was."""
    decision = Decision.NO_VERDICT if figure is None else Decision.PASS if gate.holds(figure) else Decision.FAIL
    low, high = interval or (None, None)
    return Verdict(gate, sample.target, sample.step, decision, figure, n, low, high, note, rounds=len(sample.rounds))
