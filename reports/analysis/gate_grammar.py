"""How a gate is written: "ttft p99 < 800ms" as a condition on a run, and the objectives of goodput. Pure.

    [TARGET][@STEP]: METRIC [pNN | mean | max] OP NUMBER UNIT

TARGET and STEP narrow a gate; without them it holds for each target in each load step. Latencies need a statistic and
are in us, ms or s (a bare number: ms); `errors` is a share (%), `requests` and `tokens` are rates (/s); `goodput` is
either, so its unit must be there. What a gate decides is `gates`' part. No pandas here: gates are checked before a run
is begun.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan

from traces.errors import InputError, one_of, seconds

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt
}  # fmt: skip
DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATE_UNITS = {"/s": 1.0, "/min": 1 / 60}
SHARE_UNITS = {"%": 0.01}
LATENCIES = ("ttft", "ttft_from_due", "tpot", "itl", "e2e", "longest_stall", "lateness", "connect")
UNITS: dict[str, dict[str, float]] = dict.fromkeys(LATENCIES, DURATION_UNITS) | {
    "errors": SHARE_UNITS, "goodput": RATE_UNITS | SHARE_UNITS, "requests": RATE_UNITS, "tokens": RATE_UNITS
}  # fmt: skip
BARE = dict.fromkeys(LATENCIES, "ms") | {"errors": "%", "requests": "/s", "tokens": "/s"}  # units of bare numbers
ALIASES = {"e2el": "e2e", "stall": "longest_stall", "error_rate": "errors", "ttft-from-due": "ttft_from_due"}
OBJECTIVES = ("ttft", "ttft_from_due", "tpot", "e2e", "longest_stall")
STATISTICS = "a statistic: p50, p99, p99.9, mean or max"


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
        """The quantile as a share (0.99 of p99); None for mean, max, shares and rates."""
        return float(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None

    def holds(self, figure: float) -> bool:
        return OPERATORS[self.op](figure, self.limit)


_TOKEN = re.compile(
    r"\s*(?:(?P<op><=|>=|<|>)|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<word>[A-Za-z_%/][\w%/.-]*)|(?P<odd>\S))"
)


def parse(text: str, where: str = "--slo") -> Gate:
    """Reads a gate. InputError with a caret under the place that can't be read, and `where` the text stands."""
    head, colon, _ = text.rpartition(":")
    target, _, step = head.partition("@")
    tokens = [(match.lastgroup or "", match.group(match.lastgroup or 0), match.start(match.lastgroup or 0))
              for match in _TOKEN.finditer(text, len(head + colon))]  # fmt: skip
    end = ("end", "", len(text.rstrip()))

    def take(kind: str, expected: str) -> tuple[str, int]:
        actual, value, at = tokens.pop(0) if tokens else end
        if actual != kind:
            raise _nonsense(text, at, expected, where)
        return value, at

    metrics = "a metric: " + ", ".join(UNITS)
    name, at = take("word", metrics)
    metric = ALIASES.get(name.lower(), name.lower())
    if metric not in UNITS:
        raise _nonsense(text, at, metrics, where)
    statistic = ""
    if metric in LATENCIES:
        word, at = take("word", STATISTICS)
        statistic = word.lower()
        number = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", statistic)
        if statistic not in ("mean", "max") and not (number and 0 < float(number[1]) < 100):
            raise _nonsense(text, at, STATISTICS, where)
    op, _ = take("op", "one of < <= > >=")
    limit, _ = take("number", "a number")
    if not tokens and metric in BARE:
        tokens, text = [("word", BARE[metric], len(text))], f"{text.strip()}{BARE[metric]}"
    units = f"a unit: {', '.join(UNITS[metric])}"
    unit, at = take("word", units)
    if unit not in UNITS[metric]:
        raise _nonsense(text, at, units, where)
    if tokens:
        raise _nonsense(text, tokens[0][2], "nothing more", where)
    scaled = float(limit) * UNITS[metric][unit]
    return Gate(text.strip(), metric, statistic, op, scaled, unit, target.strip(), step.strip())


def _nonsense(text: str, at: int, expected: str, where: str) -> InputError:
    return InputError(f"not a gate: expected {expected}\n    {text}\n    {' ' * at}^", where=where, column=at + 1)


def parse_goodput(objectives: Iterable[str], where: str = "--goodput") -> dict[str, float]:
    """["ttft:800", "tpot:40ms", "e2el:5s"] (bare numbers are ms, as vLLM and SGLang write them; one string with spaces
    works too) -> {"ttft": 0.8, "tpot": 0.04, "e2e": 5.0} (s)."""
    limits = {}
    for part in " ".join(objectives).replace(",", " ").split():
        name, _, value = part.partition(":")
        metric = ALIASES.get(name.lower(), name.lower())
        if metric not in OBJECTIVES:
            raise InputError(f"{part!r} has no objective: expected one of {', '.join(OBJECTIVES)}", where=where)
        try:
            limits[metric] = seconds(value, "ms")
        except ValueError:
            limits[metric] = nan
        if not 0 < limits[metric] < inf:
            raise InputError(f"{part!r}: expected a time after the colon, as in ttft:800ms", where=where)
    return limits


def check_objectives(limits: Mapping[str, float]) -> None:
    """Raises InputError for a metric that can be no objective, or a limit that is no number of seconds above 0."""
    for metric, limit in limits.items():
        if metric not in OBJECTIVES:
            raise InputError(f"{metric!r} is no objective", where="objectives", remedy=one_of(metric, OBJECTIVES))
        if not 0 < limit < inf:
            raise InputError(f"{metric}: expected seconds above 0, got {limit!r}", where="objectives")


def check(slo: Sequence[str], goodput: Sequence[str]) -> None:
    """Raises InputError for gates and objectives that no run could decide."""
    objectives = parse_goodput(goodput)
    for gate in map(parse, slo):
        if gate.metric == "goodput" and not objectives:
            raise no_objectives(gate)


def no_objectives(gate: Gate) -> InputError:
    return InputError("a goodput gate needs objectives", where=gate.text, remedy="add --goodput ttft:800 tpot:40")
