"""Page one: what a run decided, its figures at the decisive load, why to trust them, what they can't say. Pure.

Terminal, page and summary.json show this one object, so that none says what another doesn't. The *decisive load* is the
base load (factor 1), the one that was asked about; where no step has it, the nearest. A target *passes* at a load where
each gate that concerns it there passes; the *highest passing load* has no failing one below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan, log

from .. import number_format
from ..store.durations import HEADLINES
from ..store.run_folder import Run
from ..store.run_json import RunFacts, StepFacts
from .comparison import Comparison
from .evidence import ServerEvidence
from .gates import Decision, Verdict, together
from .quantiles import Quantile
from .results import Result
from .samples import Sample
from .shares import FIRM
from .steadiness import Headroom, Steadiness
from .trust import Fact, alike, listed, not_measured, trust, were
from .validity import Validity


@dataclass(frozen=True, slots=True)
class WorstRound:
    """The round with the longest TTFT p99 of a target (p50 where a round's sample bounds no p99), in s."""

    round: int
    q: float
    ttft: float


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """One target at the decisive load; durations in seconds. `about`: what it is, where that isn't plain; `errors` and
    `refused`: shares of the `n` counted requests; `slo_met`: the share that met every objective, None without
    objectives. `passes`: the highest load at which it passes, empty where there is none, None without gates; `dollars`:
    per million output tokens of requests that met the SLO; `effective`: independent requests that the weakest of the
    four latency figures is worth; `worst`: None for one round."""

    target: str
    about: str
    steadiness: Steadiness
    headroom: Headroom
    ttft_p50: Quantile
    ttft_p99: Quantile
    tpot_p50: Quantile
    tpot_p99: Quantile
    stall_p99: Quantile
    slo_met: float | None
    errors: float | None
    refused: float | None
    passes: str | None
    dollars: float | None
    rounds: int
    n: int
    effective: float | None
    worst: WorstRound | None


@dataclass(frozen=True, slots=True)
class PageOne:
    """`decision`: what all gates come to, empty without gates; `passed` of `gates` passed. `state`: whether the run can
    be trusted, which is no praise of its targets. `sentences`: what was decided; `step`, `load`: the decisive one;
    `verdicts`: of all gates."""

    decision: str
    passed: int
    gates: int
    state: str
    sentences: tuple[str, ...]
    step: str
    load: str
    targets: tuple[TargetFigures, ...]
    trust: tuple[Fact, ...]
    not_measured: tuple[Fact, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def verdict(self) -> str:
        return f"{self.decision.upper()} {self.passed}/{self.gates}" if self.gates else "no gate"


def page_one(
    run: Run, samples: Iterable[Sample], results: Sequence[Result], comparisons: Sequence[Comparison],
    verdicts: Sequence[Verdict], validity: Validity, servers: ServerEvidence, undecidable: str = "",
) -> PageOne:  # fmt: skip
    """`samples` and `results`: of each target in each step, in one order; `verdicts`: those of the run's own gates;
    `undecidable`: why there are none of its gates."""
    step = decisive(run.facts.steps, [result.step for result in results])
    here = [(sample, result) for sample, result in zip(samples, results, strict=True) if result.step == step]
    ladder = _ladder(run.facts.steps, [result.step for result in results])
    figures = tuple(_figures(run, sample, result, ladder, verdicts) for sample, result in here)
    return PageOne(
        decision=str(together(verdicts, validity.status)) if verdicts else "",
        passed=sum(verdict.decision is Decision.PASS for verdict in verdicts), gates=len(verdicts),
        state=str(validity.status),
        sentences=(
            *_gate_sentences(verdicts, ladder, step), *_faster([c for c in comparisons if c.step == step], figures)
        ),
        step=step, load=here[0][1].load if here else "", targets=figures,
        trust=tuple(trust(run, [result for _, result in here], validity, servers)),
        not_measured=tuple(not_measured(run, [result for _, result in here], verdicts, undecidable)),
        verdicts=tuple(verdicts),
    )  # fmt: skip


def decisive(steps: Sequence[StepFacts], names: Sequence[str]) -> str:
    """Of the steps of these names."""
    factors = {step.name: step.factor for step in steps}
    return min(names, key=lambda name: abs(log(factors.get(name, 1.0))), default="")


def _ladder(steps: Sequence[StepFacts], names: Sequence[str]) -> dict[str, str]:
    """Name and load in words of each step, from the lowest to the highest load."""
    facts = {step.name: step for step in steps}
    order = sorted(dict.fromkeys(names), key=lambda name: facts[name].factor if name in facts else 1.0)
    return {name: ", ".join(filter(None, (name, facts[name].load if name in facts else ""))) for name in order}


def _figures(
    run: Run, sample: Sample, result: Result, ladder: Mapping[str, str], verdicts: Sequence[Verdict]
) -> TargetFigures:
    n, refused = result.counts.counted, result.counts.outcomes.get("rate_limited", 0)
    ttft, tpot = ([result.quantile(metric, q) for q in (0.5, 0.99)] for metric in ("ttft", "tpot"))
    worth = [row.effective for row in (*ttft, *tpot) if isfinite(row.effective)]
    own = [verdict for verdict in verdicts if verdict.target == result.target]
    paid = result.cost.at_this_load if result.cost else None
    return TargetFigures(
        result.target, _about(run.facts, result.target), result.steadiness, result.headroom,
        ttft[0], ttft[1], tpot[0], tpot[1], result.quantile("longest_stall", 0.99),
        slo_met=result.goodput.share if result.goodput else None,
        errors=(result.counts.failed - refused) / n if n else None, refused=refused / n if n else None,
        passes=_highest(own, ladder) if own else None, dollars=paid.per_million_good if paid else None,
        rounds=len(sample.rounds), n=n, effective=min(worth, default=None), worst=_worst(sample),
    )  # fmt: skip


def _about(facts: RunFacts, name: str) -> str:
    target = next((target for target in facts.targets if target.name == name), None)
    simulated = target is not None and target.embedded
    return "simulated" + (f", {target.standing}" if target.standing else "") if target and simulated else ""


def _highest(own: Sequence[Verdict], ladder: Mapping[str, str]) -> str:
    highest = ""
    for step, words in ladder.items():
        decisions = {verdict.decision for verdict in own if verdict.step == step}
        if Decision.FAIL in decisions:
            break
        if decisions == {Decision.PASS}:
            highest = words
    return highest


def _worst(sample: Sample) -> WorstRound | None:
    if len(sample.rounds) < 2:
        return None
    q = 0.99 if all(each.quantile("ttft", 0.99).enough for each in sample.rounds) else 0.5
    figures = {each.round: each.quantile("ttft", q).value for each in sample.rounds}
    worst = max(figures, key=lambda number: -1.0 if isnan(figures[number]) else figures[number])
    return None if isnan(figures[worst]) else WorstRound(worst, q, figures[worst])


def _gate_sentences(verdicts: Sequence[Verdict], ladder: Mapping[str, str], decisive: str) -> Iterator[str]:
    """How many pass at the decisive load; of each target, up to which load it passes, and what it fails first."""
    here = [verdict.decision for verdict in verdicts if verdict.step == decisive]
    if here and len(ladder) > 1:
        yield f"At {ladder[decisive]}: {here.count(Decision.PASS)} of {len(here)} gates pass."
    targets = dict.fromkeys(verdict.target for verdict in verdicts)
    own = {target: [verdict for verdict in verdicts if verdict.target == target] for target in targets}
    for names, text in alike((target, _judged(own[target], ladder)) for target in targets):
        yield f"{names}: {text}."


def _judged(own: Sequence[Verdict], ladder: Mapping[str, str]) -> str:
    at_each = " at every load" if len(ladder) > 1 else ""
    if all(verdict.decision is Decision.PASS for verdict in own):
        return f"passes every gate{at_each}"
    parts = [f"passes up to {highest}"] if (highest := _highest(own, ladder)) else []
    for decision, words in ((Decision.FAIL, "fails"), (Decision.NO_VERDICT, "no verdict on")):
        first = next((v for step in ladder for v in own if v.step == step and v.decision is decision), None)
        if first:
            parts.append(f"{words} {first.gate.text}" + (f" at {first.step}" if len(ladder) > 1 else ""))
    return "; ".join(parts) or "not judged, the run is invalid"


@dataclass(frozen=True, slots=True)
class _Lead:
    """Who is ahead of all others in one figure; `words`: by how much, of the nearest of them."""

    target: str
    nearest: str
    words: str


def _faster(comparisons: Sequence[Comparison], figures: Sequence[TargetFigures]) -> Iterator[str]:
    """Who is ahead of all others in each phase, and what is said of the tail."""
    if not comparisons:
        return
    for each in figures:
        if each.steadiness.overloaded:
            yield f"{each.target} is overloaded, and not ranked: {each.steadiness.why}."
    names = [each.target for each in figures if not each.steadiness.overloaded]
    pairs = [pair for pair in comparisons if pair.base in names and pair.other in names]
    rounds = min((pair.rounds for pair in pairs), default=0)
    over = f" over {rounds} rounds" if rounds > 1 else ""
    level: list[str] = []
    for metric, phase in HEADLINES.items() if pairs else ():
        first = _lead(pairs, names, metric, 0.5)
        if not first:
            level.append(phase)
            continue
        tail = f"; {_tail(pairs, names, metric, first)}" if rounds >= FIRM else ""
        ahead = f"p50 {first.words} ahead of {first.nearest}"
        yield f"{first.target} is faster in {phase}: {metric.upper()} {ahead}{over}{tail}."
    if level:
        yield f"No target is shown to be faster than all others, by its median, in {listed(level)}."
    if 0 < rounds < FIRM:
        yield f"No winner is named in the tail (p90 and above): it takes {FIRM} rounds, and there {were(rounds)}."


def _lead(pairs: Sequence[Comparison], names: Sequence[str], metric: str, q: float) -> _Lead | None:
    """Of the p50 or the p99."""
    ahead: dict[str, list[tuple[float, str, str]]] = {name: [] for name in names}
    for pair in pairs:
        winner, ratio = pair.says(metric, q).winner, pair.metrics[metric]
        interval = (ratio.median if q == 0.5 else ratio.p99) if ratio else None
        if winner and interval:
            shown, loser = (interval, pair.other) if winner == pair.base else (interval.inverse, pair.base)
            ends = "–".join("∞" if end is None else f"{end:.2f}" for end in (shown.low, shown.high))
            factor = "far" if shown.value is None else number_format.factor(shown.value)
            ahead[winner].append((inf if shown.value is None else shown.value, loser, f"{factor} ({ends})"))
    first = next((name for name in names if len(ahead[name]) == len(names) - 1), None)
    return _Lead(first, *min(ahead[first])[1:]) if first else None


def _tail(pairs: Sequence[Comparison], names: Sequence[str], metric: str, first: _Lead) -> str:
    """What is said of the p99 where a median has a leader."""
    lead = _lead(pairs, names, metric, 0.99)
    if lead:
        whose = "" if lead.target == first.target else f" {lead.target} by"
        return f"p99{whose} {lead.words} ahead of {lead.nearest}"
    both = {first.target, first.nearest}
    says = next(pair.says(metric, 0.99) for pair in pairs if {pair.base, pair.other} == both)
    if says.winner:
        return f"at p99 {says.winner} is faster of these two, and not shown to be of all"
    return f"p99: {says.word}" + (f" ({says.why.partition(',')[0]})" if says.why else "")
