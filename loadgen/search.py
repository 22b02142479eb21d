"""Which loads a capacity search tries, and for how long. Pure: it asks an oracle, a live endpoint or one in virtual
time; what the answers mean is `reports.analysis.capacity`'s part.

Theory of operation. Steps are short while the capacity is far and long where it is decided:

1. Climb: the load doubles from the lowest one until more requests than allowed are beyond a gate. A first load that is
   too high is halved, five times at most.
2. Bisect, in the logarithm, until the two loads are within the precision. A step that decides nothing is run longer by
   what its verdict asks for, up to `max_step_s` of one load; else the search goes on by the side on which it lies.
3. Confirm: fresh slices of the trace at the highest load that seemed to hold, as long as a step may be. Where they
   don't show that it holds, the search steps back, and further each time.
4. The other side likewise: at the lowest load that seemed to fail, and upwards, until a load is shown to fail.

Near saturation a queue takes minutes to build up, so a third of each step's window comes before it as warm-up. A step
that decides nothing at all (the client was at its limit, say) is tried once more; then its load counts as too high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import floor, inf, sqrt

from reports.analysis import capacity
from reports.analysis.capacity import CONFIRMED, HALVINGS, WARMUP, Interval, Point
from reports.analysis.gate_grammar import Gate
from reports.analysis.gates import Decision
from reports.store.capacity_json import CapacityStep, SearchTerms
from traces.errors import InputError

FEWEST = 20  # requests of a step
SLICES = 6  # that are spent on the confirmation of one load


def warmup(terms: SearchTerms, seconds: float) -> float:
    """Of a step with such a window."""
    return max(terms.warmup_s, WARMUP * seconds)


def check(terms: SearchTerms) -> None:
    """Raises InputError where not a step could be tried."""
    if terms.max_step_s < terms.step_s:
        raise InputError(f"must not be below a step's {terms.step_s:g} s (--duration)", where="--max-step")
    least = terms.step_s + warmup(terms, terms.step_s)
    if terms.budget_s < least:
        raise InputError(f"one step takes {least:g} s", where="--budget", remedy="give it more")


@dataclass(frozen=True, slots=True)
class Ask:
    """What an oracle is asked for: step `number` (from 1), on requests that no step before had; times in seconds."""

    number: int
    level: float
    warmup_s: float
    seconds: float
    confirms: bool


Oracle = Callable[[Ask], CapacityStep]


class _OutOfTime(Exception):
    """The next step would be over after the budget is."""


def search(observe: Oracle, gates: Sequence[Gate], terms: SearchTerms) -> list[CapacityStep]:
    """All steps, in their order; `capacity.interval` says what they show."""
    searching = _Search(observe, gates, terms)
    with suppress(_OutOfTime):
        searching.run()
    return searching.steps


class _Search:
    def __init__(self, observe: Oracle, gates: Sequence[Gate], terms: SearchTerms) -> None:
        self._observe, self._gates, self._terms = observe, gates, terms
        self._whole = terms.by == "concurrency"
        self.steps: list[CapacityStep] = []

    def run(self) -> None:
        below, above = self._climb()
        while below and above < inf and self._apart(below, above):
            middle = self._level(sqrt(below * above))
            middle = max(middle, below + 1) if self._whole else middle
            below, above = (middle, above) if self._is_below(middle) else (below, middle)
        if below:
            self._confirm(below)
        if above < inf:
            self._refute(above)

    def _climb(self) -> tuple[float, float]:
        """The highest load that seems to hold (0: none), and the lowest above it that seems to fail (inf: none)."""
        terms = self._terms
        level, below, above = self._level(terms.lowest), 0.0, inf
        while above == inf:
            if self._is_below(level, climbing=True):
                below = level
                if level >= terms.highest:
                    return below, inf
                level = min(2 * level, terms.highest)
            else:
                above = level
        while not below and above > max(self._level(0.0), terms.lowest * 2**-HALVINGS):
            level = self._level(above / 2)
            below, above = (level, above) if self._is_below(level) else (0.0, level)
        return below, above

    def _apart(self, below: float, above: float) -> bool:
        return above > below * (1 + self._terms.precision) and not (self._whole and above <= below + 1)

    def _is_below(self, level: float, *, climbing: bool = False) -> bool:
        """Does the load seem to hold? Decided, where `max_step_s` of it can decide that; while climbing it is enough
        that no more than allowed are beyond, because the next step tells more."""
        seconds = self._least(level)
        while self._look(level, seconds):
            point, spent = self._point(level), sum(step.seconds for step in self._at(level))
            likely = point.share <= 1
            if point.decision is not Decision.NO_VERDICT:
                return point.decision is Decision.PASS
            if (climbing and likely) or point.more_s > self._terms.max_step_s - spent:
                return likely
            seconds = max(self._least(level), point.more_s)
        return False

    def _confirm(self, level: float) -> None:
        """Steps back from the level until one is shown to hold."""
        back = 1 + self._terms.precision
        while not self._is_confirmed(level):
            lower = self._level(level / back)
            if lower >= level or lower < self._terms.lowest * 2**-HALVINGS:
                return
            level, back = lower, back**1.5

    def _is_confirmed(self, level: float) -> bool:
        for number in range(1, SLICES + 1):
            if not self._look(level, self._terms.max_step_s, confirms=True):
                return False
            point = self._point(level)
            if number >= CONFIRMED and point.decision is Decision.PASS:
                return True
            if point.share > 1 or point.decision is Decision.FAIL:
                return False
            if number >= CONFIRMED and point.more_s > (SLICES - number) * self._terms.max_step_s:
                return False
        return False

    def _refute(self, level: float) -> None:
        """Steps up from the level until one is shown to fail."""
        up = 1 + self._terms.precision
        while self._interval().high == inf and level <= self._terms.highest:
            if not self._look(level, self._terms.max_step_s, confirms=True):
                return
            if self._point(level).share > 1 and self._interval().high == inf:
                self._look(level, self._terms.max_step_s, confirms=True)
            level, up = max(level + 1, self._level(level * up)) if self._whole else level * up, up**1.5

    def _look(self, level: float, seconds: float, *, confirms: bool = False) -> bool:
        """One step there, and another where it decides nothing; false where that one doesn't either."""
        for _ in range(2):
            spent = sum(step.took for step in self.steps)
            if spent + warmup(self._terms, seconds) + seconds > self._terms.budget_s:
                raise _OutOfTime
            ask = Ask(len(self.steps) + 1, level, warmup(self._terms, seconds), seconds, confirms)
            self.steps.append(self._observe(ask))
            if self.steps[-1].tallies:
                return True
        return False

    def _least(self, level: float) -> float:
        """Seconds of a step there."""
        wanted = 0.0 if self._whole else FEWEST / level
        return min(self._terms.max_step_s, max(self._terms.step_s, wanted))

    def _level(self, level: float) -> float:
        """A level that can be tried."""
        return max(self._terms.least, floor(level + 1e-9)) if self._whole else level

    def _at(self, level: float) -> list[CapacityStep]:
        return [step for step in self.steps if step.level == level and step.tallies]

    def _point(self, level: float) -> Point:
        return capacity.point(self._gates, level, self._at(level))

    def _interval(self) -> Interval:
        return capacity.interval(self._gates, self.steps)
