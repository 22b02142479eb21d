"""How a gate is written: "ttft p99 < 800ms" as a condition on a run, what may regress, and goodput's objectives. Pure.

    [TARGET][@STEP]: METRIC [pNN | mean | max] OP NUMBER UNIT [where CONDITION [and CONDITION]...] [# NAME]
    [TARGET][@STEP]: METRIC [pNN | mean] NUMBER%             [where CONDITION [and CONDITION]...] [# NAME]

The first is a gate, the second what a figure may be worse than a baseline's. TARGET and STEP narrow either; without
them it holds for each target in each load step. Latencies need a statistic and are in us, ms or s (a bare number: ms);
`errors` is a share (%), `requests` and `tokens` are rates (/s); `goodput` is either, so its unit must be there. A
CONDITION (`prompt_tokens > 4096`) leaves a slice, the requests for which it holds. What stands behind ` # ` is a name:
one line carries all of a gate into run.json. What a gate decides is `gates`' part. No pandas here: gates are checked
before a run is begun.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from traces.errors import InputError, one_of, seconds

Operators = dict[str, Callable[[Any, Any], Any]]  # of numbers, and of arrays of them
OPERATORS: Operators = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SLICE_OPERATORS: Operators = OPERATORS | {"=": operator.eq, "!=": operator.ne}
DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATE_UNITS = {"/s": 1.0, "/min": 1 / 60}
SHARE_UNITS = {"%": 0.01}
LATENCIES = ("ttft", "ttft_from_due", "tpot", "itl", "e2e", "longest_stall", "lateness", "connect")
UNITS: dict[str, dict[str, float]] = dict.fromkeys(LATENCIES, DURATION_UNITS) | {
    "errors": SHARE_UNITS, "goodput": RATE_UNITS | SHARE_UNITS, "requests": RATE_UNITS, "tokens": RATE_UNITS
}  # fmt: skip
BARE = dict.fromkeys(LATENCIES, "ms") | {"errors": "%", "requests": "/s", "tokens": "/s"}  # units of bare numbers
ALIASES = {"e2el": "e2e", "stall": "longest_stall", "error_rate": "errors", "ttft-from-due": "ttft_from_due"}
REGRESSING = (*LATENCIES, "requests", "tokens", "goodput")
# What requests can be sliced by, columns of a run's rows: lengths as the trace has them, so that failed requests belong
# to a slice too; `in_flight` at send; `session` -1 for none; `turn` 0 for the first.
SLICED_BY = ("prompt_tokens", "output_tokens", "in_flight", "session", "turn")
OBJECTIVES = ("ttft", "ttft_from_due", "tpot", "e2e", "longest_stall")
TAIL = 0.9  # the quantile from which on a figure is of the tail, which a calm window says little of
STATISTICS = "a statistic: p50, p99, p99.9, mean or max"


@dataclass(frozen=True, slots=True)
class Condition:
    """Which requests a gate asks about: those for which `field OP number` holds; `field` is one of SLICED_BY."""

    field: str
    op: str
    number: float

    def __str__(self) -> str:
        return f"{self.field} {self.op} {self.number:g}"


@dataclass(frozen=True, slots=True)
class Gate:
    """What is asked of a run. `text`: all of it but its name; `statistic`: p50, p99, mean, max, or empty for shares and
    rates; `limit` in s, 1/s or a share; `where`: the slice that it asks about, requests for which all hold."""

    text: str
    metric: str
    statistic: str
    op: str
    limit: float
    unit: str
    target: str = ""
    step: str = ""
    where: tuple[Condition, ...] = ()
    name: str = ""

    @property
    def q(self) -> float | None:
        """The quantile as a share (0.99 of p99); None for mean, max, shares and rates."""
        return float(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None

    @property
    def line(self) -> str:
        """The text that `parse` reads back, with the name."""
        return f"{self.text} # {self.name}" if self.name else self.text

    def holds(self, figure: float) -> bool:
        return bool(OPERATORS[self.op](figure, self.limit))


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much worse than a baseline's a figure may be: `limit` 0.1 is 10 %, of latencies upwards, of rates downwards.
    The other fields are `Gate`'s."""

    text: str
    metric: str
    statistic: str
    limit: float
    target: str = ""
    step: str = ""
    where: tuple[Condition, ...] = ()
    name: str = ""

    @property
    def q(self) -> float | None:
        """As a gate's."""
        return float(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None


def parse(text: str, where: str = "--slo") -> Gate:
    """Reads a gate. InputError with a caret under the place that can't be read, and `where` the text stands."""
    reader = _Reader(text, where, "gate")
    metric = reader.metric(tuple(UNITS))
    statistic = reader.statistic(("mean", "max")) if metric in LATENCIES else ""
    op, _ = reader.take("op", f"one of {' '.join(OPERATORS)}", OPERATORS)
    limit, at = reader.take("number", "a number")
    if metric in BARE and reader.next in ("", "where"):
        unit = BARE[metric]
        reader.insert(unit, at + len(limit))
    else:
        unit, _ = reader.take("word", f"a unit: {', '.join(UNITS[metric])}", UNITS[metric])
    scaled = float(limit) * UNITS[metric][unit]
    conditions = reader.conditions(of=metric)
    return Gate(reader.text, metric, statistic, op, scaled, unit, reader.target, reader.step, conditions, reader.name)


def parse_allowance(text: str, where: str = "--max-regress") -> Allowance:
    """Reads "ttft p99 10%". InputError as of `parse`."""
    reader = _Reader(text, where, "regression")
    metric = reader.metric(REGRESSING)
    statistic = reader.statistic(("mean",)) if metric in LATENCIES else ""
    limit, _ = reader.take("number", "how much it may regress, such as 10%")
    reader.take("word", "%", ("%",))
    conditions = reader.conditions(of=metric)
    share = float(limit) / 100
    return Allowance(reader.text, metric, statistic, share, reader.target, reader.step, conditions, reader.name)


def parse_conditions(text: str, where: str) -> tuple[Condition, ...]:
    """Reads "prompt_tokens > 4096 and turn > 0". InputError as of `parse`."""
    return _Reader(f"where {text}", where, "slice", headed=False).conditions()


_TOKEN = re.compile(
    r"\s*(?:(?P<op><=|>=|!=|<|>|=)|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<word>[A-Za-z_%/][\w%/.-]*)|(?P<odd>\S))"
)
_NAMED = " # "


class _Reader:
    """Takes a text apart, token by token. `kind`: what the text is meant to be."""

    def __init__(self, text: str, where: str, kind: str, *, headed: bool = True) -> None:
        self._whole, self._where, self._kind = text, where, kind
        body, named, name = text.partition(_NAMED)
        self.text, self.name = body.strip(), name.strip()
        if named and not (self.name and self.name.isprintable()):
            raise self._nonsense(len(body) + len(_NAMED), "a name behind the #, on one line")
        head, colon, _ = body.rpartition(":") if headed else ("", "", "")
        self.target, _, self.step = (part.strip() for part in head.partition("@"))
        self._tokens = [(match.lastgroup or "", match.group(match.lastgroup or 0), match.start(match.lastgroup or 0))
                        for match in _TOKEN.finditer(body, len(head + colon))]  # fmt: skip
        self._end = ("end", "", len(body.rstrip()))

    @property
    def next(self) -> str:
        """The next token, lower case; empty at the end."""
        return self._tokens[0][1].lower() if self._tokens else ""

    def take(self, kind: str, expected: str, known: Iterable[str] = ()) -> tuple[str, int]:
        """The next token, and where it begins."""
        actual, value, at = self._tokens.pop(0) if self._tokens else self._end
        if actual != kind or (known and value not in known):
            raise self._nonsense(at, expected)
        return value, at

    def insert(self, unit: str, at: int) -> None:
        """Puts into the text what was left out of it."""
        self.text = f"{self._whole[:at]}{unit}{self._whole[at : self._end[2]]}".strip()

    def metric(self, known: Sequence[str]) -> str:
        expected = "a metric: " + ", ".join(known)
        name, at = self.take("word", expected)
        metric = ALIASES.get(name.lower(), name.lower())
        if metric not in known:
            raise self._nonsense(at, expected)
        return metric

    def statistic(self, moments: Sequence[str]) -> str:
        expected = f"a statistic: p50, p99, p99.9, {' or '.join(moments)}"
        word, at = self.take("word", expected)
        number = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", word.lower())
        if word.lower() not in moments and not (number and 0 < float(number[1]) < 100):
            raise self._nonsense(at, expected)
        return word.lower()

    def conditions(self, of: str = "") -> tuple[Condition, ...]:
        """What follows `where`, to the end."""
        found: list[Condition] = []
        while self._tokens:
            if of == "itl":
                raise self._nonsense(
                    self._tokens[0][2], "nothing more: ITL's gaps belong to no request, so to no slice"
                )
            joint = "and" if found else "where"
            if self.next != joint:
                raise self._nonsense(self._tokens[0][2], f"nothing more, or `{joint}`")
            self.take("word", joint)
            name, _ = self.take("word", f"what requests can be sliced by: {', '.join(SLICED_BY)}", SLICED_BY)
            op, _ = self.take("op", f"one of {' '.join(SLICE_OPERATORS)}", SLICE_OPERATORS)
            number, _ = self.take("number", "a number")
            found.append(Condition(name, op, float(number)))
        return tuple(found)

    def _nonsense(self, at: int, expected: str) -> InputError:
        message = f"not a {self._kind}: expected {expected}\n    {self._whole}\n    {' ' * at}^"
        return InputError(message, where=self._where, column=at + 1)


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


def implied_objectives(gates: Iterable[Gate]) -> dict[str, float]:
    """The objectives of a run that names gates alone: a gate on a tail (p90 and above, max) counts the requests beyond
    its limit, so that the limit is what a single request must keep. Of several on one metric the one furthest out; none
    from a gate on a median or mean, which half of all requests may miss, or on one target, step or slice."""
    limits: dict[str, tuple[float, float]] = {}
    for gate in gates:
        q = 1.0 if gate.statistic == "max" else gate.q or 0.0
        of_all = not (gate.target or gate.step or gate.where)
        if gate.metric in OBJECTIVES and q >= TAIL and of_all and gate.op.startswith("<") and gate.limit > 0:
            limits[gate.metric] = max(limits.get(gate.metric, (0.0, 0.0)), (q, gate.limit))
    return {metric: limit for metric, (_, limit) in limits.items()}


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
