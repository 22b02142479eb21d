"""A series of rounds, recorded one after the other: each is a run of its own, in `round-1/`, `round-2/`, ...

Theory of operation. One Locust process, workers and all, records the rounds, as long as all of its workers live. A
round in which one dies is lost, and named with its reason in rounds.json: the others have sent only their parts, so it
was another load than the other rounds'. A new process records the rounds that follow. A round whose client was the
bottleneck is lost, too. Ctrl-C ends the series and loses the round under way; what was finished stays. rounds.json is
written whenever a round begins or ends, so that whatever kills this process, the rounds that it has recorded can be
read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reports.store import rounds_json, run_json
from reports.store.rounds_json import Ended, RoundFacts, RoundsFacts
from traces.errors import UNUSABLE, RunFailed
from traces.trace import Trace

from . import plan as plans
from .plan import Plan
from .processes import LocustProcess, Workers
from .turns import PARALLEL

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class PlannedRound:
    """`number` counts from 1; `traces`: the plan's requests by file."""

    number: int
    plan: Plan
    traces: Mapping[str, Trace]

    def facts(self) -> RoundFacts:
        order: dict[str, tuple[str, ...]] = {}
        if self.plan.order != PARALLEL:
            for step in self.plan.steps:
                order[step.name] = (*order.get(step.name, ()), *(arm.target.name for arm in step.arms))
        return RoundFacts(self.number, self.plan.seed, order)


def record(
    folder: Path, facts: RoundsFacts, rounds: Sequence[PlannedRound], workers: Workers, extra: Sequence[str] = (), *,
    ask: Callable[[Path], None] = lambda _: None, invalid: Callable[[Path], str] = lambda _: "",
    decided: Callable[[Path], bool] = lambda _: False,
    show: Callable[[str], None] = lambda _: None, shown: bool = False,
) -> Ended:  # fmt: skip
    """Records the rounds into the folder, and returns how the series ended.

    ask      called with the folder of each planned round before it is recorded
    invalid  called with the folder of each recorded round: why it doesn't count, or ""
    decided  called with the series' folder after each round that counts: may the series end?
    show     gets a line for each round that begins or is lost
    extra    options for Locust itself, whose warnings and live lines go to stderr where `shown`

    Raises RunFailed where Locust can't take a plan at all: a mistake, and no loss of a round."""
    series, pending = _Series(folder, facts), list(rounds)
    try:
        while pending:
            with LocustProcess(workers, extra, shown=shown) as locust:
                while pending:
                    each = pending.pop(0)
                    show(f"round {each.number} of {len(rounds)}: {_in_words(each.plan)}")
                    sound = _recorded(series, each, locust, ask, invalid)
                    if lost := series.facts.rounds[-1].lost:
                        show(f"round {each.number} of {len(rounds)} is lost: {lost}")
                    elif pending and decided(folder):
                        return series.end("decided")
                    if not sound:
                        break
        return series.end("completed")
    except (KeyboardInterrupt, RunFailed) as problem:
        if series.under_way:
            series.lose(str(problem) or INTERRUPTED)
        series.end("interrupted")
        if isinstance(problem, RunFailed):
            raise
        return "interrupted"


def _recorded(
    series: _Series, each: PlannedRound, locust: LocustProcess, ask: Callable[[Path], None],
    invalid: Callable[[Path], str],
) -> bool:  # fmt: skip
    """Records one round. Can the Locust process record another?"""
    folder = rounds_json.round_folder(series.folder, each.number)
    folder.mkdir()
    plans.save(each.plan, each.traces, folder)
    series.begin(each.facts())
    ask(folder)
    try:
        locust.record(folder)
        lost = _lost(folder)
    except RunFailed as failure:
        if failure.code == UNUSABLE:
            raise
        lost = str(failure)
    if lost == INTERRUPTED:
        raise KeyboardInterrupt
    series.under_way = False
    if why := lost or invalid(folder):
        series.lose(why)
    return not lost


def _lost(folder: Path) -> str:
    """Why a round that was recorded doesn't count; "" where it does, as far as its workers go."""
    facts = run_json.read(folder)
    gone = [worker for worker in facts.workers if worker.lost]
    if gone:
        return "; ".join(f"worker {each.number} of {len(facts.workers)} was lost: {each.lost}" for each in gone)
    return {"completed": "", "interrupted": INTERRUPTED}.get(facts.ended, "it could not be completed")


def _in_words(plan: Plan) -> str:
    """The steps, and whose turn it is in each where targets aren't side by side."""
    steps: dict[str, list[str]] = {}
    for step in plan.steps:
        steps.setdefault(step.name, []).append(" beside ".join(arm.target.name for arm in step.arms))
    return "; ".join(f"{name}: {', then '.join(names)}" for name, names in steps.items())


class _Series:
    """rounds.json, kept up to date."""

    def __init__(self, folder: Path, facts: RoundsFacts) -> None:
        self.folder, self.facts = folder, facts
        self.under_way = False
        rounds_json.write(folder, facts)

    def begin(self, each: RoundFacts) -> None:
        self.under_way = True
        self._write(rounds=(*self.facts.rounds, each))

    def lose(self, why: str) -> None:
        """The last round doesn't count."""
        *before, last = self.facts.rounds
        self._write(rounds=(*before, replace(last, lost=why)))

    def end(self, ended: Ended) -> Ended:
        self._write(ended=ended)
        return ended

    def _write(self, **changes: object) -> None:
        self.facts = replace(self.facts, **changes)  # type: ignore[arg-type]
        rounds_json.write(self.folder, self.facts)
