"""What a run will take: time, requests, tokens, dollars, quotas, and which gates it can't decide. Pure.

All of it follows from the plan and its requests. Dollars and output tokens are at most what is told: answers end early
where their length isn't held, and what a target will have cached isn't known. By the hour a target costs for as long as
the run's arrivals take, whether it is sent something or waits for its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from reports.analysis import quantiles
from reports.analysis.costs import Price, Usage
from reports.analysis.gate_grammar import SLICE_OPERATORS, TAIL, Gate, parse
from reports.analysis.student import t
from targets.target import Target
from traces.trace import NS_PER_S, Trace

from .plan import Arm, Step
from .quotas import Fit, Limits, Round, fits, length_ns


@dataclass(frozen=True, slots=True)
class Extra:
    """What each target is sent beside the load: fixed prompts before the rounds (`evidence`). Tokens: about."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


NOTHING = Extra()


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """What a target is sent in one step of one round. `seconds`: for which requests arrive, None where they are sent as
    earlier ones end, and no duration ends that; `dollars`: at most, None without a price, and where the target is
    simulated."""

    round: int
    step: str
    target: str
    seconds: float | None
    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


@dataclass(frozen=True, slots=True)
class Total:
    """Of one target in all rounds."""

    target: str
    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """`seconds`: for which requests arrive in all, and `seconds_at_most`, where each step's last answers take as long
    as they may (None: not known). `fits`: each known limit against the worst window of the whole run; `undecided`:
    gates that the planned requests can hardly decide, and why; `extra`: of each target, which the totals
    count."""

    trace: str
    order: str
    rounds: int
    quota_scale: float
    seconds: float | None
    seconds_at_most: float | None
    arms: tuple[PlannedArm, ...]
    totals: tuple[Total, ...]
    fits: tuple[Fit, ...]
    undecided: tuple[str, ...]
    extra: Extra = NOTHING

    @property
    def admitted(self) -> bool:
        return all(fit.admits for fit in self.fits)


def forecast(rounds: Sequence[Round], limits: Limits, extra: Extra = NOTHING) -> Forecast:
    """Of the rounds' plans and requests, and of what each target is known to admit. `extra`: what each target is
    sent besides."""
    plan = rounds[0][0]
    arms = tuple(
        _arm(number, step, arm, traces[arm.file], paid=arm.target.name not in plan.embedded)
        for number, (each, traces) in enumerate(rounds, 1)
        for step in each.steps
        for arm in step.arms
    )
    lengths = [_seconds(step, traces[step.arms[0].file]) for each, traces in rounds for step in each.steps]
    known = [length for length in lengths if length is not None]
    seconds = sum(known) if len(known) == len(lengths) else None
    drains = sum(step.drain_s for each, _ in rounds for step in each.steps)
    totals = (_total(target, arms, seconds, extra, paid=target.name not in plan.embedded) for target in plan.targets)
    return Forecast(
        trace=plan.trace.name if plan.trace else plan.name, order=plan.order, rounds=len(rounds),
        quota_scale=plan.quota_scale, seconds=seconds, seconds_at_most=None if seconds is None else seconds + drains,
        arms=arms, totals=tuple(totals), fits=tuple(fits(rounds, limits)),
        undecided=(*_undecided(rounds), *_without_headroom(rounds)), extra=extra,
    )  # fmt: skip


def _seconds(step: Step, trace: Trace) -> float | None:
    in_flight = step.arms[0].concurrency is not None and step.end_ns is None
    return None if in_flight else length_ns(step, trace) / NS_PER_S


def _arm(number: int, step: Step, arm: Arm, trace: Trace, *, paid: bool) -> PlannedArm:
    prompt, output = (int(trace.column(name).sum()) for name in ("prompt_tokens", "output_tokens"))
    seconds = _seconds(step, trace)
    dollars = _dollars(arm.target, seconds, len(trace), prompt, output) if paid else None
    return PlannedArm(number, step.name, arm.target.name, seconds, len(trace), prompt, output, dollars)


def _dollars(target: Target, seconds: float | None, requests: int, prompt: int, output: int) -> float | None:
    price = Price.of(target)
    if price is None or (price.by == "hour" and seconds is None):
        return None
    return price.dollars(Usage(seconds or 0.0, requests, prompt, 0.0, output))


def _total(target: Target, arms: Sequence[PlannedArm], seconds: float | None, extra: Extra, *, paid: bool) -> Total:
    own = [arm for arm in arms if arm.target == target.name]
    requests = sum(arm.requests for arm in own) + extra.requests
    prompt = sum(arm.input_tokens for arm in own) + extra.input_tokens
    output = sum(arm.output_tokens for arm in own) + extra.output_tokens
    dollars = _dollars(target, seconds, requests, prompt, output) if paid else None
    return Total(target.name, requests, prompt, output, dollars)


def _undecided(rounds: Sequence[Round]) -> Iterator[str]:
    """A line for each gate and step whose planned requests, were each independent of the others, are too few."""
    plan = rounds[0][0]
    steps = {step.name: step for step in plan.steps}
    for gate in map(parse, plan.slo):
        needed = _needed(gate)
        for name, step in steps.items():
            concerned = gate.step in ("", name) and gate.target in ("", *(target.name for target in plan.targets))
            if not concerned or needed is None:
                continue
            planned = [_counted(gate, step, traces[_file(each.steps, name)]) for each, traces in rounds]
            if None in planned or (total := sum(filter(None, planned))) >= needed:
                continue
            asked = gate.statistic or gate.metric
            each = f" ({' + '.join(map(str, planned))} in {len(planned)} rounds)" if len(planned) > 1 else ""
            yield (
                f"{gate.text} in step {name}: {asked} needs about {needed:,} effective requests, {total:,} are "
                f"planned{each}: no verdict is likely"
                + (f"; {needed / total:.1f} times as many, at least, are wanted" if total else "")
            )


def _without_headroom(rounds: Sequence[Round]) -> Iterator[str]:
    """A line for each gate on a tail that can't pass over rounds, because no steeper step shows headroom."""
    from reports.analysis.steadiness import MARGIN  # pandas is with it, which a run that is only planned is spared

    plan = rounds[0][0]
    factors = {step.name: step.factor for step in plan.steps}
    for gate in map(parse, plan.slo) if len(rounds) > 1 else ():
        without = [name for name, factor in factors.items() if factor * MARGIN > max(factors.values()) * (1 + 1e-9)]
        without = [name for name in without if gate.step in ("", name)]
        if gate.q is not None and gate.q >= TAIL and without:
            where = f"step{'s' * (len(without) > 1)} {', '.join(without)}"
            yield f"{gate.text} can't pass in {where}: no step of {MARGIN:g} times the load shows headroom"


def _file(steps: Sequence[Step], name: str) -> str:
    return next(step.arms[0].file for step in steps if step.name == name)


def _needed(gate: Gate) -> int | None:
    """The fewest independent requests that let a gate pass or fail; None of means, maxima and rates, which have no
    bounds."""
    if gate.q is not None:
        return ceil(round(quantiles.plain(np.zeros(0), gate.q).effective_needed, 6))
    if gate.unit != "%":
        return None
    share = min(gate.limit, 1 - gate.limit)
    return ceil(t(quantiles.BATCHES - 1, quantiles.ONE_SIDED) ** 2 * (1 / share - 1)) if share > 0 else None


def _counted(gate: Gate, step: Step, trace: Trace) -> int | None:
    """Requests of the step that the gate asks about; None where it is not known before they are sent."""
    counted = trace.column("due") >= step.warmup_ns
    for condition in gate.where:
        if condition.field == "in_flight" or not trace.has(condition.field):
            return None
        counted &= SLICE_OPERATORS[condition.op](trace.column(condition.field), condition.number)
    return int(counted.sum())
