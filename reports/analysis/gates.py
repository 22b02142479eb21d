"""Gates: "ttft p99 < 800ms" as a question to a run, and its verdict.

    [TARGET][@STEP]: METRIC [pNN | mean | max] OP NUMBER UNIT

TARGET and STEP narrow a gate; without them it asks each target in each load step. Latencies want a statistic and a
unit (us, ms, s); `errors` is a share (%), `goodput` a rate (/s) or a share (%), `requests` and `tokens` are rates
(/s). A quantile takes failures as +inf. Exit codes: 0 all passed, 1 one failed, 2 not a gate, 3 can't be decided (run
invalid, or too few samples to bound the quantile).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isnan
from typing import Any

import numpy as np

from traces.errors import InputError

from ..store.digests import UNADJUSTED
from . import quantiles
from .validity import Status

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt
}  # fmt: skip
DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATE_UNITS = {"/s": 1.0, "/min": 1 / 60}
SHARE_UNITS = {"%": 0.01}
LATENCIES = ("ttft", "ttft_from_due", "tpot", "itl", "e2e", "longest_stall", "lateness", "connect")
UNITS: dict[str, dict[str, float]] = {
    **dict.fromkeys(LATENCIES, DURATION_UNITS),
    "errors": SHARE_UNITS,
    "goodput": RATE_UNITS | SHARE_UNITS,
    "requests": RATE_UNITS,
    "tokens": RATE_UNITS,
}
ALIASES = {"e2el": "e2e", "stall": "longest_stall", "error_rate": "errors", "ttft-from-due": "ttft_from_due"}
OBJECTIVES = ("ttft", "ttft_from_due", "tpot", "e2e", "longest_stall")


class Result(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    TOO_FEW = "too few samples"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition. `statistic`: p50, p99, mean, max, or empty for shares and rates; `limit` in s, 1/s or a share."""

    text: str
    metric: str
    statistic: str
    op: str
    limit: float
    unit: str
    target: str = ""
    step: str = ""

    @property
    def q(self) -> float | None:
        return float(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None

    def holds(self, figure: float) -> bool:
        return OPERATORS[self.op](figure, self.limit)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer for one target in one step. `figure` may be inf (unbounded); the interval is None without one."""

    gate: Gate
    target: str
    step: str
    result: Result
    figure: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate.text, "target": self.target, "step": self.step, "result": str(self.result),
            "figure": None if self.figure is None else quantiles.finite(self.figure), "unbounded": self.figure == inf,
            "low": None if self.low is None else quantiles.finite(self.low),
            "high": None if self.high is None else quantiles.finite(self.high),
            "limit": self.gate.limit, "op": self.gate.op, "n": self.n, "note": self.note,
        }  # fmt: skip


_TOKEN = re.compile(
    r"\s*(?:(?P<op><=|>=|<|>)|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<word>[A-Za-z_%/][\w%/.-]*)|(?P<odd>\S))"
)


def parse(text: str) -> Gate:
    """Reads a gate. InputError with a caret under the place that can't be read."""
    target, step, start = _qualifier(text)
    tokens = [(match.lastgroup or "", match.group(match.lastgroup or 0), match.start(match.lastgroup or 0))
              for match in _TOKEN.finditer(text, start)]  # fmt: skip
    end = ("end", "", len(text.rstrip()))

    def take(kind: str, wanted: str) -> tuple[str, int]:
        got, value, at = tokens.pop(0) if tokens else end
        if got != kind:
            raise _nonsense(text, at, wanted)
        return value, at

    name, at = take("word", "a metric: " + ", ".join(UNITS))
    metric = ALIASES.get(name.lower(), name.lower())
    if metric not in UNITS:
        raise _nonsense(text, at, "a metric: " + ", ".join(UNITS))
    statistic = ""
    if metric in LATENCIES:
        statistic, at = take("word", "a statistic: p50, p99, p99.9, mean or max")
        _check_statistic(text, statistic := statistic.lower(), at)
    op, _ = take("op", "one of < <= > >=")
    number, _ = take("number", "a number")
    units = UNITS[metric]
    unit, at = take("word", f"a unit: {', '.join(units)}")
    if unit not in units:
        raise _nonsense(text, at, f"a unit: {', '.join(units)}")
    if tokens:
        raise _nonsense(text, tokens[0][2], "nothing more")
    return Gate(text.strip(), metric, statistic, op, float(number) * units[unit], unit, target, step)


def _qualifier(text: str) -> tuple[str, str, int]:
    """TARGET@STEP before the last colon, and where the rest begins."""
    head, colon, _ = text.rpartition(":")
    if not colon:
        return "", "", 0
    target, _, step = head.strip().partition("@")
    return target.strip(), step.strip(), len(head) + 1


def _check_statistic(text: str, statistic: str, at: int) -> None:
    if statistic in ("mean", "max"):
        return
    number = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", statistic)
    if number is None or not 0 < float(number[1]) < 100:
        raise _nonsense(text, at, "a statistic: p50, p99, p99.9, mean or max")


def _nonsense(text: str, at: int, wanted: str) -> InputError:
    return InputError(f"not a gate: expected {wanted}\n    {text}\n    {' ' * at}^", where="--slo", column=at + 1)


def parse_goodput(objectives: Sequence[str]) -> dict[str, float]:
    """["ttft:800", "tpot:40", "e2el:5000"] (ms, as vLLM and SGLang write them; one string with spaces works too)
    -> {"ttft": 0.8, "tpot": 0.04, "e2e": 5.0} (s)."""
    found = {}
    for part in " ".join(objectives).replace(",", " ").split():
        name, _, value = part.partition(":")
        metric = ALIASES.get(name.lower(), name.lower())
        if metric not in OBJECTIVES:
            raise InputError(f"{part!r} has no objective: expected one of {', '.join(OBJECTIVES)}", where="--goodput")
        try:
            limit = float(value)
        except ValueError:
            limit = -1.0
        if not 0 < limit < inf:
            raise InputError(f"{part!r}: expected milliseconds after the colon, as in ttft:800", where="--goodput")
        found[metric] = limit / 1e3
    return found


def check(slo: Sequence[str], goodput: Sequence[str]) -> None:
    """Raises InputError for what could not be decided after a run either."""
    objectives = parse_goodput(goodput)
    for gate in map(parse, slo):
        if gate.metric == "goodput" and not objectives:
            raise _no_objectives(gate)


def _no_objectives(gate: Gate) -> InputError:
    return InputError("a goodput gate needs objectives", where=gate.text, remedy="add --goodput ttft:800 tpot:40")


def exit_code(verdicts: Sequence[Verdict], status: Status | str) -> int:
    """0 passed, 1 failed, 3 undecided: what is invalid decides nothing, whatever the figures are."""
    results = {verdict.result for verdict in verdicts}
    if Result.INVALID in results or (status == Status.INVALID and not verdicts):
        return 3
    if Result.FAIL in results:
        return 1
    return 3 if results - {Result.PASS} else 0


Sample = Mapping[str, Any]


def decide(gate: Gate, sample: Sample, target: str, step: str) -> Verdict:
    """The verdict on one target's sample in one step.

    sample: "counted" and "failed" (requests), "window" (s), "values" {metric: sorted seconds}, "good" (requests that
    met every objective, None without objectives), "requests_per_s" and "tokens_per_s".
    """
    n, failed = int(sample["counted"]), int(sample["failed"])
    if gate.metric == "errors":
        return _share(gate, target, step, failed, n)
    if gate.metric in ("requests", "tokens"):
        return _plain(gate, target, step, float(sample[f"{gate.metric}_per_s"]), n)
    if gate.metric == "goodput":
        good = sample["good"]
        if good is None:
            raise _no_objectives(gate)
        if gate.unit == "%":
            return _share(gate, target, step, good, n)
        return _plain(gate, target, step, good / sample["window"] if sample["window"] else 0.0, n)
    return _latency(gate, target, step, sample["values"][gate.metric], 0 if gate.metric in UNADJUSTED else failed)


def _latency(gate: Gate, target: str, step: str, values: quantiles.Values, failed: int) -> Verdict:
    if gate.q is None:
        return _moment(gate, target, step, values, failed)
    found = quantiles.quantile(values, gate.q, failed)
    if not found.enough or isnan(found.value):
        return Verdict(gate, target, step, Result.TOO_FEW, None, found.n, note=f"n={found.n}, needs {found.needs}")
    result = Result.PASS if gate.holds(found.value) else Result.FAIL
    note = ""
    if found.value == inf:
        note = f"{failed} of {found.n} failed: no bound"
    elif gate.holds(found.low) != gate.holds(found.high):
        note = "the limit lies inside the 95 % interval"
    return Verdict(gate, target, step, result, found.value, found.n, found.low, found.high, note)


def _moment(gate: Gate, target: str, step: str, values: quantiles.Values, failed: int) -> Verdict:
    """Mean and max have no adjusted form: of the answered requests, and the note says how many failed."""
    if len(values) < 2:
        return Verdict(gate, target, step, Result.TOO_FEW, None, len(values), note=f"n={len(values)}, needs 2")
    figure = float(values[-1] if gate.statistic == "max" else np.mean(values))
    return _plain(
        gate, target, step, figure, len(values), f"{failed} failed, not in the {gate.statistic}" * bool(failed)
    )


def _share(gate: Gate, target: str, step: str, part: int, n: int) -> Verdict:
    return _plain(gate, target, step, part / n if n else 0.0, n, f"{part} of {n}")


def _plain(gate: Gate, target: str, step: str, figure: float, n: int, note: str = "") -> Verdict:
    if n == 0:
        return Verdict(gate, target, step, Result.TOO_FEW, None, 0, note="no counted requests")
    return Verdict(gate, target, step, Result.PASS if gate.holds(figure) else Result.FAIL, figure, n, note=note)


def judge(
    samples: Mapping[tuple[str, str], Sample], gates: Sequence[Gate], reasons: Sequence[Mapping[str, str]] = ()
) -> list[Verdict]:
    """Every gate on every target and step that it concerns. `reasons` are the run's validity's: where one makes the run
    invalid, no target that it concerns passes or fails. InputError where a gate concerns none."""
    verdicts = []
    for gate in gates:
        concerned = [(target, step) for target, step in samples if _concerns(gate, target, step)]
        if not concerned:
            there = ", ".join(f"{target}@{step}" if step else target for target, step in samples)
            raise InputError("no such target or step in this run", where=gate.text, remedy=f"there are {there}")
        verdicts += [decide(gate, samples[key], *key) for key in concerned]
    blamed = {reason["target"] for reason in reasons if reason["status"] == Status.INVALID}
    whole = not blamed <= {target for target, _ in samples}  # no target is named, or one that left no rows to ask
    return [
        replace(verdict, result=Result.INVALID) if whole or verdict.target in blamed else verdict
        for verdict in verdicts
    ]


def _concerns(gate: Gate, target: str, step: str) -> bool:
    return gate.target in ("", target) and gate.step in ("", step)
