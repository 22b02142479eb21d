"""Gates: "ttft p99 < 800ms" as a condition on a run, and how it is written. Pure.

    [TARGET][@STEP]: METRIC [pNN | mean | max] OP NUMBER UNIT

TARGET and STEP narrow a gate; without them it holds for each target in each load step. Latencies need a statistic and
a unit (us, ms, s); `errors` is a share (%), `goodput` a rate (/s) or a share (%), `requests` and `tokens` are rates
(/s). `reports.analysis.verdicts` decides gates.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from traces.errors import InputError

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


_TOKEN = re.compile(
    r"\s*(?:(?P<op><=|>=|<|>)|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<word>[A-Za-z_%/][\w%/.-]*)|(?P<odd>\S))"
)


def parse(text: str) -> Gate:
    """Reads a gate. InputError with a caret under the place that can't be read."""
    target, step, start = _qualifier(text)
    tokens = [(match.lastgroup or "", match.group(match.lastgroup or 0), match.start(match.lastgroup or 0))
              for match in _TOKEN.finditer(text, start)]  # fmt: skip
    end = ("end", "", len(text.rstrip()))

    def take(kind: str, expected: str) -> tuple[str, int]:
        actual, value, at = tokens.pop(0) if tokens else end
        if actual != kind:
            raise _nonsense(text, at, expected)
        return value, at

    metrics = "a metric: " + ", ".join(UNITS)
    name, at = take("word", metrics)
    metric = ALIASES.get(name.lower(), name.lower())
    if metric not in UNITS:
        raise _nonsense(text, at, metrics)
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


def _nonsense(text: str, at: int, expected: str) -> InputError:
    return InputError(f"not a gate: expected {expected}\n    {text}\n    {' ' * at}^", where="--slo", column=at + 1)


def parse_goodput(objectives: Iterable[str]) -> dict[str, float]:
    """["ttft:800", "tpot:40", "e2el:5000"] (ms, as vLLM and SGLang write them; one string with spaces works too)
    -> {"ttft": 0.8, "tpot": 0.04, "e2e": 5.0} (s)."""
    limits = {}
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
        limits[metric] = limit / 1e3
    return limits


def check(slo: Sequence[str], goodput: Sequence[str]) -> None:
    """Raises InputError for gates and objectives that no run could decide."""
    objectives = parse_goodput(goodput)
    for gate in map(parse, slo):
        if gate.metric == "goodput" and not objectives:
            raise no_objectives(gate)


def no_objectives(gate: Gate) -> InputError:
    return InputError("a goodput gate needs objectives", where=gate.text, remedy="add --goodput ttft:800 tpot:40")
