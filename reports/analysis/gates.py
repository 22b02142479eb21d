"""Gates: "ttft p99 < 800ms" as a condition on a run, how it is written, and its verdicts with their exit code. Pure.

    [TARGET][@STEP]: METRIC [pNN | mean | max] OP NUMBER UNIT

TARGET and STEP narrow a gate; without them it holds for each target in each load step. Latencies need a statistic and
are in us, ms or s (a bare number: ms); `errors` is a share (%), `requests` and `tokens` are rates (/s); `goodput` is
either, so its unit must be there. "ttft p99 < 800ms" asks whether fewer than 1 % of the requests, failures included,
take 800 ms or longer: it passes where the upper one-sided 95 % bound of that share (`quantiles.share`) is below 1 %,
fails where the lower one is above, and else there is no verdict. Shares are decided likewise; rates, means and maxima
have no bounds and are compared as they are. Exit codes: 0 all passed, 1 one failed, 2 not a gate, 3 no verdict (or the
run is invalid). No pandas here: gates are checked before a run is begun.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isnan, nan
from typing import TYPE_CHECKING

from traces.errors import InputError, one_of, seconds

from . import quantiles
from .quantiles import Share, finite
from .validity import Reason, Status

if TYPE_CHECKING:
    from ..store.run_folder import Key
    from .samples import Sample

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
TAIL = 0.9  # quantiles from here on are a tail
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


def implied_objectives(gates: Iterable[Gate]) -> dict[str, float]:
    """The objectives of a run that names gates alone: a gate on a tail (p90 and above, max) counts the requests beyond
    its limit, so that the limit is what a single request must keep. Of several on one metric the one furthest out; none
    from a gate on a median or mean, which half of all requests may miss, or on one target or step."""
    limits: dict[str, tuple[float, float]] = {}
    for gate in gates:
        q = 1.0 if gate.statistic == "max" else gate.q or 0.0
        of_all = not gate.target and not gate.step and gate.op.startswith("<")
        if gate.metric in OBJECTIVES and q >= TAIL and of_all and gate.limit > 0:
            limits[gate.metric] = max(limits.get(gate.metric, (0.0, 0.0)), (q, gate.limit))
    return {metric: limit for metric, (_, limit) in limits.items()}


def check(slo: Sequence[str], goodput: Sequence[str]) -> None:
    """Raises InputError for gates and objectives that no run could decide."""
    objectives = parse_goodput(goodput)
    for gate in map(parse, slo):
        if gate.metric == "goodput" and not objectives:
            raise _no_objectives(gate)


def _no_objectives(gate: Gate) -> InputError:
    return InputError("a goodput gate needs objectives", where=gate.text, remedy="add --goodput ttft:800 tpot:40")


class Decision(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    NO_VERDICT = "no verdict"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer for one target in one step. `figure` (s, 1/s or a share) and the ends of its 95 % interval may be
    inf (unbounded); None where there are none. `n`: the samples behind it; `more_s`: further seconds of the same load
    that would decide it (inf: the figure is at the limit)."""

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

    def as_json(self) -> dict[str, object]:
        """The verdict as `phaseload gate --json` prints it; an infinite figure is null, and `unbounded`."""
        return {
            "gate": self.gate.text, "target": self.target, "step": self.step, "result": str(self.decision),
            "figure": finite(self.figure), "unbounded": self.figure == inf, "low": finite(self.low),
            "high": finite(self.high), "limit": self.gate.limit, "op": self.gate.op, "n": self.n, "note": self.note,
            "more_s": finite(self.more_s),
        }  # fmt: skip


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
    if gate.metric == "goodput" and sample.good is None:
        raise _no_objectives(gate)
    if not sample.n:
        return _verdict(gate, sample, None, 0, "no counted requests")
    if gate.metric in LATENCIES:
        return _moment(gate, sample) if gate.q is None else _quantile(gate, sample, gate.q)
    if gate.unit == "%":
        return _share(gate, sample)
    throughput = sample.throughput
    rates = {"requests": throughput.requests_per_s, "tokens": throughput.output_tokens_per_s, "goodput": sample.goodput}
    return _verdict(gate, sample, rates[gate.metric] or 0.0, sample.n)


def _quantile(gate: Gate, sample: Sample, q: float) -> Verdict:
    """A quantile keeps the limit where the share of requests beyond it is small enough: that share has bounds."""
    row = sample.quantile(gate.metric, q)
    if not row.enough or isnan(row.value):
        return _verdict(gate, sample, None, row.n, f"n={row.n}, needs {row.needs}")
    if gate.metric == "itl":
        return _verdict(gate, sample, row.value, row.n, "of this run: gaps have no interval")
    ordered = sample.ordered[gate.metric]
    share = quantiles.share(ordered.beyond(gate.limit, inclusive=gate.op in ("<", ">=")), ordered.sizes, ordered)
    note = f"{sample.failed_in(gate.metric)} of {row.n} failed: no bound" if row.unbounded else ""
    interval = () if isnan(row.low) else (row.low, row.high)
    return _decided(_verdict(gate, sample, row.value, row.n, note, *interval), share, 1 - q, sample.window_s)


def _share(gate: Gate, sample: Sample) -> Verdict:
    e2e = sample.ordered["e2e"]
    part = e2e.failed if gate.metric == "errors" or sample.good_in is None else sample.good_in
    share = quantiles.share(part, sample.sizes, None if gate.metric == "errors" else e2e)
    verdict = _verdict(gate, sample, share.value, sample.n, f"{part.sum()} of {sample.n}", share.low, share.high)
    return _decided(verdict, share, gate.limit, sample.window_s)


def _decided(verdict: Verdict, share: Share, limit: float, seconds: float) -> Verdict:
    """PASS or FAIL where a one-sided 95 % bound of the share is on that side of the limit; else NO VERDICT, and the
    further seconds that should decide it."""
    if share.high < limit or share.low > limit:
        small = verdict.gate.op.startswith("<")
        return replace(verdict, decision=Decision.PASS if (share.high < limit) == small else Decision.FAIL)
    more = share.more_s(limit, seconds)
    further = f"{more:,.0f} s" if more < 120 else f"{more / 60:,.0f} minutes"
    remedy = f"run about {further} more, or longer" if more < inf else "the limit is too near to tell"
    note = f"worth {share.effective:,.0f}: {remedy}"
    note = "; ".join(filter(None, (verdict.note, note)))
    return replace(verdict, decision=Decision.NO_VERDICT, note=note, more_s=more)


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
    return Verdict(gate, sample.target, sample.step, decision, figure, n, low, high, note)
