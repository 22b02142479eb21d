"""How often is what we print about certainty right? Endpoints of known truth in virtual time, fixed seeds.

Cells: `bench._decisions`. Of TTFT p50 and p99, in the first 2 and 10 minutes of the runs: how many windows have an
interval and how many of these hold the truth (beside the interval for independent requests, which was printed once);
how many bake-offs of five rounds print a figure as decided, and how many of these intervals hold it; the verdicts of
gates whose limit is beside the truth; and whether the time that an undecided gate asks for decides it.

    python -m bench.decisions [--seeds 200] [--processes 2] [--endpoint NAME]... [--use SHARE]... [--arrivals NAME]...

Prints the tables of docs/metrics.md, then what was promised; exits with 1 where a promise is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import inf, isfinite, isnan, nan, sqrt

import numpy as np

from reports.analysis import quantiles, shares, steadiness
from reports.analysis.firmness import calm, undecided
from reports.analysis.gate_grammar import TAIL
from reports.analysis.quantiles import Ordered
from reports.analysis.steadiness import MARGIN

from ._decisions import (
    ENDPOINTS,
    FIRST_SEED,
    ROUNDS,
    USES,
    WINDOWS_S,
    Bakeoff,
    Cell,
    Recorded,
    bakeoffs,
    longer,
    record,
)

QUANTILES = (0.5, 0.99)
BESIDE = (0.7, 0.9, 1.1, 1.4)  # limits of gates, as multiples of the truth
STEADY = 0.6  # the share of its capacity up to which a tail should be decided
FALSE = 0.05
EXTENDED = 40  # undecided windows of a line that are run for as long as they ask


@dataclass
class Tally:
    """How many of so many."""

    hits: int = 0
    n: int = 0

    def add(self, hit: bool) -> None:
        self.hits, self.n = self.hits + bool(hit), self.n + 1

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else nan

    def __str__(self) -> str:
        return f"{100 * self.share:.0f}" if self.n else "-"

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.hits + other.hits, self.n + other.n)


def tallies() -> dict[float, Tally]:
    return {beside: Tally() for beside in BESIDE}


@dataclass
class Line:
    """One quantile of one cell in windows of one length. `printed`, `holds`, `independent`, `worth`: of one window;
    `decided`, `firm`: of five rounds; `every`: those not decided too. Verdicts by limit: right ones and false ones, of
    one window and of five rounds; `told`: undecided gates that the time they asked for decided."""

    cell: Cell
    seconds: int
    q: float
    printed: Tally = field(default_factory=Tally)
    holds: Tally = field(default_factory=Tally)
    independent: Tally = field(default_factory=Tally)
    worth: float = nan
    decided: Tally = field(default_factory=Tally)
    firm: Tally = field(default_factory=Tally)
    every: Tally = field(default_factory=Tally)
    right: dict[float, Tally] = field(default_factory=tallies)
    false: dict[float, Tally] = field(default_factory=tallies)
    rounds_right: dict[float, Tally] = field(default_factory=tallies)
    rounds_false: dict[float, Tally] = field(default_factory=tallies)
    told: Tally = field(default_factory=Tally)
    rounds_told: Tally = field(default_factory=Tally)


def judged(cell: Cell, seeds: int) -> list[Line]:
    """All lines of a cell, from runs that are made once."""
    runs = [record(cell, FIRST_SEED + number) for number in range(seeds)]
    steeper = [record(cell, FIRST_SEED + number, MARGIN) for number in range(max(ROUNDS, seeds // 4))]
    whole = np.sort(np.concatenate([run.ttft for run in runs]))
    lines = []
    for seconds in WINDOWS_S:
        series = list(bakeoffs(runs, steeper, seconds))
        for q in QUANTILES:
            line, truth = Line(cell, seconds, q), float(whole[int(q * len(whole))])
            one_window(line, runs, truth)
            over_rounds(line, series, runs, truth)
            lines.append(line)
    return lines


def one_window(line: Line, runs: Sequence[Recorded], truth: float) -> None:
    q, worth = line.q, []
    for number, run in enumerate(runs):
        ordered = run.first(line.seconds)
        figure = quantiles.quantile(ordered, q)
        printed = not isnan(figure.low) and not figure.drifting
        line.printed.add(printed)
        if printed:
            line.holds.add(figure.low <= truth <= figure.high)
        line.independent.add(independent(ordered, q, truth))
        worth.append(figure.effective / max(1, figure.n))
        for beside in BESIDE:
            more = verdict(line.right, line.false, ordered, q, beside, truth)
            if isfinite(more) and line.told.n < EXTENDED:
                again = shared(longer(runs, number, line.seconds * (1 + more)), beside * truth)
                line.told.add(again.side(1 - q) != 0)
    known = [share for share in worth if not isnan(share)]
    line.worth = float(np.median(known)) if known else nan


def over_rounds(line: Line, series: Iterable[Bakeoff], runs: Sequence[Recorded], truth: float) -> None:
    windows = [run.first(line.seconds) for run in runs]
    for number, bakeoff in enumerate(series):
        figure = quantiles.quantile(bakeoff.pooled, line.q)
        tail = line.q >= TAIL
        why = undecided(figure, line.seconds, steadiness.over_rounds(bakeoff.states), bakeoff.headroom)
        decided = not isnan(figure.low) and not why
        line.decided.add(decided)
        holds = figure.low <= truth <= figure.high
        line.every.add(holds)
        if decided:
            line.firm.add(holds)
        may_pass = not bakeoff.overloaded and not (tail and calm(line.seconds, bakeoff.headroom))
        for beside in BESIDE:
            more = verdict(
                line.rounds_right, line.rounds_false, bakeoff.pooled, line.q, beside, truth, may_pass=may_pass
            )
            if isfinite(more) and line.rounds_told.n < EXTENDED:
                others = [windows[(number + i) % len(runs)] for i in range(int(np.ceil(more * ROUNDS)))]
                again = shared(Ordered.pooled([*bakeoff.rounds, *others]), beside * truth)
                line.rounds_told.add(again.side(1 - line.q) != 0)


def shared(ordered: Ordered, limit: float) -> shares.Share:
    return shares.share(ordered.beyond(limit, inclusive=True), ordered.sizes, ordered)


def verdict(
    right: dict[float, Tally], false: dict[float, Tally], ordered: Ordered, q: float, beside: float, truth: float,
    *, may_pass: bool = True,
) -> float:  # fmt: skip
    """Counts a gate's verdict at this limit. What an undecided one asks for, as a multiple of the run; else nan."""
    share = shared(ordered, beside * truth)
    side = share.side(1 - q)  # -1: below the limit, PASS
    correct = -1 if beside > 1 else 1
    shown = side if may_pass or side > 0 else 0
    right[beside].add(shown == correct)
    false[beside].add(shown == -correct)
    return nan if side else share.more(1 - q)


def independent(ordered: Ordered, q: float, truth: float) -> bool:
    """Does the interval for independent requests hold the truth?"""
    ranks, values = quantiles.ranks(ordered.n, q), np.append(ordered.values, np.full(int(ordered.failed.sum()), inf))
    return ranks is not None and bool(values[ranks[0] - 1] <= truth <= values[ranks[1] - 1])


def rows(lines: Iterable[Line], cells: Callable[[Line], Sequence[object]]) -> Iterator[str]:
    """Lines of a Markdown table: p50 and p99 of a cell and window beside each other."""
    pairs: dict[tuple[Cell, int], list[Line]] = {}
    for line in lines:
        pairs.setdefault((line.cell, line.seconds), []).append(line)
    for (cell, seconds), (median, tail) in pairs.items():
        both = [f"{a} / {b}" for a, b in zip(cells(median), cells(tail), strict=True)]
        yield f"| {cell.endpoint} {cell.use:.0%} {cell.arrivals} | {seconds // 60} | {' | '.join(both)} |"


def tables(lines: Sequence[Line], *, headings: bool = True) -> Iterator[str]:
    """Markdown; every figure is p50 / p99, in %."""

    def table(title: str, columns: Sequence[str], cells: Callable[[Line], Sequence[object]]) -> Iterator[str]:
        if headings:
            columns = ("endpoint, use, arrivals", "minutes", *columns)
            yield f"{title}:\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
        yield from rows(lines, cells)
        if headings:
            yield ""

    yield from table(
        "One window", ("with an interval", "of these hold the truth", "if independent", "requests are worth"),
        lambda line: (line.printed, line.holds, line.independent, f"{100 * line.worth:.0f}"),
    )  # fmt: skip
    yield from table(
        f"{ROUNDS} rounds", ("printed as decided", "of these hold the truth", "all hold"),
        lambda line: (line.decided, line.firm, line.every),
    )  # fmt: skip
    limits = [f"{'FAIL' if beside < 1 else 'PASS'} {beside}" for beside in BESIDE]
    for of, verdicts in (("one window", lambda line: (line.right, line.false)),
                         (f"{ROUNDS} rounds", lambda line: (line.rounds_right, line.rounds_false))):  # fmt: skip
        yield from table(
            f"Gates of {of}, right verdicts (false ones) by the limit as a multiple of the truth", limits,
            lambda line, of=verdicts: [f"{of(line)[0][at]} ({of(line)[1][at]})" for at in BESIDE],  # type: ignore[misc]
        )  # fmt: skip


def promises(lines: Sequence[Line], seeds: int) -> Iterator[tuple[bool, str]]:
    """What decisions must hold, and whether they do: in each cell, with twice the error that so many seeds leave."""
    tails = [line for line in lines if line.q >= TAIL and line.seconds == max(WINDOWS_S)]
    near = [line for line in tails if line.cell.use >= 0.9]
    far = [line for line in tails if line.cell.use <= STEADY]
    steady = [line for line in lines if line.cell.use <= STEADY]
    firm = [line for line in lines if line.firm.n >= seeds / 4]
    sets = max(1, seeds // ROUNDS)  # rounds are drawn anew from the same seeds: a set of five counts once

    def at_least(what: str, share: float, of: Callable[[Line], Tally], among: Sequence[Line]) -> tuple[bool, str]:
        worst = min(among, key=lambda line: of(line).share, default=None)
        kept = worst is None or of(worst).share >= share - 2 * sqrt(share * (1 - share) / sets)
        return kept, f"{what} in >= {share:.0%}: {_worst(worst, of)}"

    def at_most(what: str, of: Callable[[Line], Tally], among: Sequence[Line], n: int) -> tuple[bool, str]:
        worst = max(among, key=lambda line: of(line).share, default=None)
        kept = worst is None or of(worst).share <= FALSE + 2 * sqrt(FALSE * (1 - FALSE) / n)
        return kept, f"{what} in <= {FALSE:.0%}: {_worst(worst, of)}"

    yield at_least(f"intervals of {ROUNDS} rounds printed as decided hold the truth", 0.9, lambda line: line.firm, firm)
    mean = float(np.mean([line.firm.share for line in firm])) if firm else nan
    yield 0.92 <= mean <= 0.98, f"their mean over cells is 93 to 97 %: {mean:.1%}"
    yield at_most("at 90 % use a tail is printed as decided", lambda line: line.decided, near, sets)
    yield at_least("up to 60 % use a tail is printed as decided", 0.9, lambda line: line.decided, far)
    for beside, word in ((0.9, "PASS"), (1.1, "FAIL")):
        what = f"false {word} at a limit of {beside} of the truth, "
        yield at_most(f"{what}{ROUNDS} rounds,", lambda line, at=beside: line.rounds_false[at], lines, sets)  # type: ignore[misc]
        yield at_most(f"{what}one window up to 60 % use,", lambda line, at=beside: line.false[at], steady, seeds)  # type: ignore[misc]
    for what, told in (("minutes", [line.told for line in lines]), ("rounds", [line.rounds_told for line in lines])):
        total = sum(told, Tally())
        yield not total.share < 0.8, f"further {what} that NO VERDICT asks for decide in >= 80%: {total} % of {total.n}"


def _worst(line: Line | None, of: Callable[[Line], Tally]) -> str:
    if line is None:
        return "no cell"
    cell = line.cell
    return f"{of(line)} % ({cell.endpoint} {cell.use:.0%} {cell.arrivals}, {line.seconds // 60} min, p{100 * line.q:g})"


def main() -> bool:
    """True where a promise is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--endpoint", choices=ENDPOINTS, action="append")
    parser.add_argument("--use", type=float, action="append")
    parser.add_argument("--arrivals", choices=("poisson", "own"), action="append")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    cells = [
        Cell(*each)
        for each in product(options.endpoint or ENDPOINTS, options.use or USES, options.arrivals or ("poisson", "own"))
    ]
    began, lines = time.perf_counter(), dict[Cell, list[Line]]()
    with ProcessPoolExecutor(options.processes) as pool:
        pending = {pool.submit(partial(judged, cell, options.seeds)): cell for cell in cells}
        for done in as_completed(pending):
            lines[pending[done]] = done.result()
            minutes = (time.perf_counter() - began) / 60
            print(f"{len(lines)} of {len(cells)} cells, {minutes:.1f} minutes", file=sys.stderr)
            print("\n".join(tables(lines[pending[done]], headings=False)), file=sys.stderr, flush=True)
    every = [line for cell in cells for line in lines[cell]]
    print(f"{options.seeds} seeds a cell, from {FIRST_SEED}; p50 / p99 of TTFT, in %\n")
    print("\n".join(tables(every)), "\n")
    kept = list(promises(every, options.seeds))
    for held, text in kept:
        print(f"{'ok    ' if held else 'MISSED'} {text}")
    return not all(held for held, _ in kept)


if __name__ == "__main__":
    sys.exit(main())
