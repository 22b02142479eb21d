"""Do the targets' quotas admit what is to be sent to them? Pure.

Theory of operation. A bake-off is laid out in time as it will be sent, round after round and step after step, without
the pauses between them, so that what is found is the worst that can happen. Of every window of a limit's period that
begins with a request the sum is taken: no other window holds more. What fits a sliding window fits a bucket of the same
size that refills steadily, too, which is how most vendors count. Targets of one server, model and key are one account,
and share its quota where they run side by side. Requests with a fixed number in flight have no instants before they
are sent, and nothing is said of them; a session's later turns are taken as the trace has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import numpy.typing as npt

from targets.quota import CONCURRENT, Limit
from targets.target import Target
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from .plan import Plan, Step

Whole = npt.NDArray[np.int64]
Round = tuple[Plan, Mapping[str, Trace]]  # a round's plan, and its requests by file
Limits = Mapping[str, Sequence[Limit]]  # by target
SPARE = 0.995  # of a limit: whole sessions can't be cut to fit
LEAST = 1e-5  # share of the load, below which none is looked for


@dataclass(frozen=True, slots=True)
class Fit:
    """A limit against the worst window of its period: `needed` of the limit's kind, from second `at` of a step on (of
    the whole run: `round` is the one in which that is)."""

    target: str
    limit: Limit
    needed: int
    round: int
    step: str
    at: float

    @property
    def share(self) -> float:
        """Of the limit that is needed."""
        return self.needed / self.limit.most

    @property
    def admits(self) -> bool:
        return self.needed <= self.limit.most

    def __str__(self) -> str:
        where = f"step {self.step}" + (f" of round {self.round}" if self.round > 1 else "")
        if self.limit.period == "day":
            needs = f"the run's {self.needed:,}"
        else:
            needs = f"minute {floor(self.at / 60) + 1} of {where}, which needs {self.needed:,}"
        return f"its quota of {self.limit} can't admit {needs}"


@dataclass(frozen=True, slots=True)
class Sends:
    """What an account is sent: instants (ns from the first step's begin), tokens, and the round and step of each."""

    at: Whole
    prompt: Whole
    output: Whole
    begins: Whole  # of the request's step
    place: Whole  # in `steps`
    steps: tuple[tuple[int, str], ...]  # (round, name)

    def amount(self, kind: str) -> Whole:
        amounts: dict[str, Callable[[], Whole]] = {
            "requests": lambda: np.ones(len(self.at), np.int64), "tokens": lambda: self.prompt + self.output,
            "input tokens": lambda: self.prompt, "output tokens": lambda: self.output,
        }  # fmt: skip
        return amounts[kind]()

    def fit(self, target: str, limit: Limit) -> Fit | None:
        """None where nothing is sent."""
        if not len(self.at):
            return None
        needed, first = worst(self.at, self.amount(limit.kind), limit.period_ns)
        number, step = self.steps[self.place[first]]
        return Fit(target, limit, needed, number, step, float(self.at[first] - self.begins[first]) / NS_PER_S)


def worst(at: Whole, amount: Whole, period: int) -> tuple[int, int]:
    """The most that falls into any half-open window of `period` nanoseconds, and the request with which it begins;
    `at` is sorted and not empty."""
    total = np.concatenate(([0], np.cumsum(amount)))
    sums = total[np.searchsorted(at, at + period, side="left")] - total[np.arange(len(at))]
    first = int(np.argmax(sums))
    return int(sums[first]), first


def shortfalls(limits: Sequence[Limit], trace: Trace) -> Iterator[str]:
    """A line for each limit that the trace's worst period exceeds."""
    columns = trace.column("due"), trace.column("prompt_tokens"), trace.column("output_tokens")
    nowhere = np.zeros(len(trace), np.int64)
    sent = Sends(*columns, nowhere, nowhere, ((1, ""),))
    for limit in limits:
        fit = sent.fit("", limit)
        if fit and not fit.admits:
            yield (
                f"admits {limit}, the trace's worst {limit.period} needs {fit.needed:,}: "
                f"at most {1 / fit.share:.0%} of it would be let in"
            )


def length_ns(step: Step, trace: Trace) -> int:
    """How long a step's arrivals take."""
    return step.end_ns if step.end_ns is not None else trace.span


def sends(rounds: Sequence[Round], names: set[str]) -> Sends:
    """What the targets of these names are sent in all rounds, but for steps with a fixed number in flight."""
    parts: list[tuple[Whole, Whole, Whole, Whole, Whole]] = []
    begin, steps = 0, list[tuple[int, str]]()
    for number, (plan, traces) in enumerate(rounds, 1):
        for step in plan.steps:
            for arm in step.arms:
                if arm.target.name in names and arm.concurrency is None:
                    trace = traces[arm.file]
                    due, same = trace.column("due") + begin, np.ones(len(trace), np.int64)
                    columns = (trace.column("prompt_tokens"), trace.column("output_tokens"))
                    parts.append((due, *columns, same * begin, same * len(steps)))
            steps.append((number, step.name))
            begin += length_ns(step, traces[step.arms[0].file])
    none = np.zeros(0, np.int64)
    at, *others = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (none,) * 5
    order = np.argsort(at, kind="stable")
    prompt, output, begins, place = (column[order] for column in others)
    return Sends(at[order], prompt, output, begins, place, tuple(steps))


def account(target: Target) -> tuple[str | None, ...]:
    """Targets that are alike in this share a quota."""
    headers = tuple(f"{name}: {value}" for name, value in target.headers)
    return (target.url, target.model, target.api_key_env, target.api_key_file, *headers)


def fits(rounds: Sequence[Round], limits: Limits) -> list[Fit]:
    """Each target's limits against the worst windows of the whole run."""
    return list(_fits(rounds, limits))


def _fits(rounds: Sequence[Round], limits: Limits) -> Iterator[Fit]:
    targets = rounds[0][0].targets
    for target in targets:
        if of_target := limits.get(target.name):
            alike = {each.name for each in targets if account(each) == account(target)}
            sent = sends(rounds, alike)
            yield from (fit for limit in of_target if (fit := sent.fit(target.name, limit)))


def too_many_at_once(plan: Plan) -> Iterator[tuple[str, str]]:
    """(target, problem) where a fixed number in flight is beyond what a target admits at once."""
    for step in plan.steps:
        for arm in step.arms:
            most = arm.target.concurrent_requests
            if most is not None and arm.concurrency is not None and arm.concurrency > most:
                yield arm.target.name, f"its {CONCURRENT} = {most} can't admit {arm.concurrency} in step {step.name}"


def check(rounds: Sequence[Round], limits: Limits) -> None:
    """Raises InputError where a target's quota can't admit what is to be sent to it."""
    for name, problem in too_many_at_once(rounds[0][0]):
        raise InputError(problem, where=name, remedy="a smaller --concurrency")
    refused = [fit for fit in fits(rounds, limits) if not fit.admits]
    if refused:
        first = max(refused, key=lambda fit: fit.share)
        remedy = f"--quota-scale auto thins the load equally for all targets, here to about {_below(1 / first.share)}"
        raise InputError(str(first), where=first.target, remedy=remedy)


def _below(share: float) -> str:
    """Two digits, rounded down."""
    digits = next(digits for digits in range(2, 9) if share >= 10.0 ** (1 - digits))
    return f"{floor(share * 10**digits) / 10**digits:g}"


def share_of(scale: str | float | None, rounds_at: Callable[[float], Sequence[Round]], limits: Limits) -> float:
    """The share of the load that is to be sent: what the user names, all of it (None), or about as much as all quotas
    admit ("auto"); `rounds_at`: the rounds at a share. Raises InputError."""
    if isinstance(scale, str):
        return share_that_fits(rounds_at, limits)
    return 1.0 if scale is None else scale


def share_that_fits(thinned: Callable[[float], Sequence[Round]], limits: Limits) -> float:
    """A share of the load that all quotas admit, within a few percent of the largest; `thinned`: the rounds at a share.
    Raises InputError where nothing would be left to send."""
    share = 1.0
    while most := max((fit.share for fit in fits(thinned(share), limits) if not fit.admits), default=0.0):
        share *= SPARE / most
        if share < LEAST:
            raise InputError("next to nothing of the load would be left", where="--quota-scale", remedy="a lighter one")
    return share
