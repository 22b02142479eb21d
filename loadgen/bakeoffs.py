"""Bake-offs: the same requests to several targets, load step by load step, once or in several rounds.

`arrange` says what a bake-off would send, to whom and in what order, and sends nothing. One round is planned by
`prepare`, as a run of its own; several are recorded by `record`, in a folder of rounds (`series`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from reports.store.rounds_json import RoundsFacts
from reports.store.run_json import EmbeddedFacts
from targets.target import Target
from traces.errors import InputError
from traces.trace import Trace

from . import demonstration, preflight, quotas, replays, series
from . import plan as plans
from .demonstration import Embedded
from .evidence import Witness, extra
from .forecast import NOTHING, Forecast, forecast
from .options import Load, RunKeywords, RunOptions, check_names
from .plan import LoadStep
from .processes import Workers
from .quotas import Limits, Round
from .rounds import Ladder, rounds_of, steps_of, windowed
from .series import PlannedRound
from .turns import PARALLEL, SEQUENTIAL, Turns, check_order, turns_of

if TYPE_CHECKING:
    from reports.store.run_folder import Run

WORKLOAD = demonstration.WORKLOAD
NAME = "bakeoff"


@dataclass(frozen=True)
class Bakeoff:
    """What is to be recorded. `rounds`: the load steps of each; `embedded`: what is known of targets that were started
    for it."""

    rounds: Sequence[Sequence[LoadStep]]
    targets: Sequence[Target]
    ladder: Ladder
    turns: Turns
    embedded: Mapping[str, EmbeddedFacts] = field(default_factory=dict)

    def looked_at(self, options: RunOptions) -> Bakeoff:
        """The bake-off with targets as plans hold them. Raises InputError."""
        preflight.check_options(options, [target.endpoint_type for target in self.targets])
        return replace(self, targets=replays.settled(self.targets, options))

    def ready(
        self, options: RunOptions, workers: int, closing: str = "", *, unseen: bool = False
    ) -> tuple[list[PlannedRound], Limits]:
        """All rounds, thinned as the user asks, and what the targets are known to admit; `unseen`: they are sent
        nothing. Raises InputError for all that can be known before the load begins."""
        ours = unseen or bool(self.embedded)
        first = self.planned(1, options, closing)
        seen = preflight.check(first.plan, workers, [] if ours else self.targets, options.wait_ready, options.probe)
        limits = preflight.limits_stated(self.targets) | seen

        def at(share: float) -> list[PlannedRound]:
            numbers = range(1, len(self.rounds) + 1)
            return [self.planned(number, options, closing, share) for number in numbers]

        share = quotas.share_of(options.quota_scale, lambda share: _sent(at(share)), limits)
        return at(share), limits

    def planned(self, number: int, options: RunOptions, closing: str = "", share: float = 1.0) -> PlannedRound:
        """Round `number`, from 1, with this share of its sessions."""
        steps, names = self.rounds[number - 1], [target.name for target in self.targets]
        groups = self.turns.groups(names, [step.name for step in steps], number, self.rounds[0][0].load.seed)
        plan, traces = replays.planned(
            NAME, steps, self.targets, options, groups=groups, order=self.turns.order, closing=closing,
            embedded=self.embedded, quota_scale=share,
        )  # fmt: skip
        return PlannedRound(number, plan, traces)


def _sent(rounds: Sequence[PlannedRound]) -> list[Round]:
    return [(each.plan, each.traces) for each in rounds]


def bakeoff(
    trace: Trace | str | Path | None = None, targets: Sequence[Target] = (), load: Load | None = None, *,
    rounds: int = 1, round_duration: float | None = None, load_factors: Sequence[float] | None = None,
    steps: Sequence[float] | None = None, step_duration: float | None = None, order: str | None = None,
    stop_early: bool = False, workers: Workers | None = None, **options: Unpack[RunKeywords],
) -> Run:  # fmt: skip
    """Replays one trace against several targets, step by step, and returns what was recorded.

    trace          a trace or its name; by default the bundled azure-conv
    targets        by default a demonstration: three simulated endpoints of this machine
    load           of the base step
    rounds         how often, each time with other requests: another slice of the trace, another seed of a workload
    round_duration seconds of a round's window (600, where the load has no duration)
    load_factors   load steps: so many times the trace's sessions; 0.5, 1, 2 (only the base)
    steps          load steps of another kind: time is compressed so many times (in the demonstration 0.1, 1, 3)
    step_duration  seconds of each step but the base
    order          "parallel", "sequential" (each target alone, as named) or "random" (each alone, none favoured); by
                   default "sequential" for one round, and what hosts and certificate allow for several
    stop_early     the rounds end as soon as every gate is decided
    options        see `RunOptions`

    Ctrl-C and exceptions as for `replay`; of several rounds those that were finished are returned.
    """
    workers, kept, own = workers or Workers(), RunOptions.of(options), bool(targets)
    ladder = ladder_of(load_factors, steps, step_duration)
    with ExitStack() as servers:
        if own:
            load = windowed(load or Load(), round_duration)
            ready = arrange(trace or WORKLOAD, targets, load, ladder or Ladder(), rounds, order, workers.count)
            folder = None
        else:
            given = {} if round_duration is None else {"duration": round_duration}
            load = load or demonstration.load_of(given, own_trace=trace is not None)
            folder, ready = demonstrate(
                trace or WORKLOAD, load, ladder, rounds, order, kept, workers.count, servers=servers
            )
        if rounds > 1:
            return replays.reported(record(ready, kept, workers, folder=folder, stop_early=stop_early))
        return replays.recorded(prepare(ready, kept, workers.count, folder=folder), workers)


def ladder_of(factors: Sequence[float] | None, steps: Sequence[float] | None, step_s: float | None) -> Ladder | None:
    """The load steps that the user named, as multiples of sessions or by compressing time; None where neither is."""
    if factors is not None and steps is not None:
        remedy = "--load leaves out and adds sessions, --steps compresses time"
        raise InputError("can't be combined with --steps", where="--load", remedy=remedy)
    if factors is None and steps is None:
        return None
    return Ladder(tuple(factors or steps or ()), speedup=steps is not None, step_s=step_s)


def arrange(
    trace: Trace | str | Path, targets: Sequence[Target], load: Load, ladder: Ladder, rounds: int, order: str | None,
    workers: int,
) -> Bakeoff:  # fmt: skip
    """A bake-off of the user's targets in so many rounds. Raises InputError."""
    check_names(targets)
    check_order(order)
    loads = _loads(trace, load, ladder, rounds)
    if order is None and rounds == 1:
        order = SEQUENTIAL
    return Bakeoff(loads, targets, ladder, turns_of(order, targets, loads, workers))


def demonstrate(
    trace: Trace | str | Path, load: Load, ladder: Ladder | None, rounds: int, order: str | None, options: RunOptions,
    workers: int, *, model: str = demonstration.MODEL, servers: ExitStack | None = None,
) -> tuple[Path, Bakeoff]:  # fmt: skip
    """Starts the simulated endpoints, which end with this process, or with `servers`; the folder, which has their logs,
    and their bake-off. Raises InputError."""
    check_order(order)
    preflight.check_options(options, [endpoint.endpoint_type for endpoint in demonstration.THREE])
    unstarted, endpoints = rehearse(trace, load, ladder, rounds, order, workers, model=model)
    folder = replays.new_folder(NAME, options.out)
    targets = demonstration.start(endpoints, model, folder / "endpoints", servers)
    return folder, replace(unstarted, targets=targets)


def rehearse(
    trace: Trace | str | Path, load: Load, ladder: Ladder | None, rounds: int, order: str | None, workers: int, *,
    model: str = demonstration.MODEL,
) -> tuple[Bakeoff, list[Embedded]]:  # fmt: skip
    """The demonstration's bake-off, whose endpoints aren't started, and these. Raises InputError."""
    check_order(order)
    ladder = ladder or demonstration.LADDER
    if ladder.speedup and ladder.step_s is None:
        ladder = replace(ladder, step_s=demonstration.LADDER.step_s)
    loads = _loads(trace, load, ladder, rounds)
    endpoints = demonstration.sized(demonstration.THREE, trace, load, model)
    targets = [demonstration.target_of(endpoint, demonstration.UNSTARTED, model) for endpoint in endpoints]
    turns = turns_of(PARALLEL if order is None and rounds == 1 else order, targets, loads, workers)
    facts = {each.name: each.facts(model) for each in endpoints}
    return Bakeoff(loads, targets, ladder, turns, facts), endpoints


def _loads(trace: Trace | str | Path, load: Load, ladder: Ladder, rounds: int) -> list[list[LoadStep]]:
    return [steps_of(trace, load, ladder)] if rounds == 1 else rounds_of(trace, load, ladder, rounds)


def prepare(
    ready: Bakeoff, options: RunOptions, workers: int, *, folder: Path | None = None, closing: str = ""
) -> Path:
    """Plans the bake-off of one round as a run, in the folder or a new one, which it returns. Raises InputError."""
    ready = ready if folder else ready.looked_at(options)
    [planned], limits = ready.ready(options, workers, closing)
    quotas.check(_sent([planned]), limits)
    folder = folder or replays.new_folder(NAME, options.out)
    plans.save(planned.plan, planned.traces, folder)
    return folder


def record(
    ready: Bakeoff, options: RunOptions, workers: Workers, extra: Sequence[str] = (), *, folder: Path | None = None,
    closing: str = "", stop_early: bool = False, confirm: Callable[[Forecast], None] = lambda _: None,
    show: Callable[[str], None] = lambda _: None, shown: bool = False,
) -> Path:  # fmt: skip
    """Records all rounds into the folder or a new one, which it returns; see `series.record`. `confirm` is called
    before anything of them is sent, and may raise what ends it. Raises InputError."""
    if stop_early and not options.slo:
        raise InputError(
            "needs a gate to be decided", where="--stop-early", remedy='for example --slo "ttft p99 < 800ms"'
        )
    ready = ready if folder else ready.looked_at(options)
    rounds, limits = ready.ready(options, workers.count, closing)
    quotas.check(_sent(rounds), limits)
    confirm(_forecast(rounds, limits, options))
    folder = folder or replays.new_folder(NAME, options.out)
    facts = RoundsFacts(
        name=folder.name, created=datetime.now(UTC).isoformat(timespec="seconds"), version=version("phaseload"),
        seed=rounds[0].plan.seed, planned=len(rounds), order=ready.turns.order, why=ready.turns.why,
        factors=tuple(ready.ladder.factors), loads="speedup" if ready.ladder.speedup else "sessions",
        stop_early=stop_early,
    )  # fmt: skip
    show(f"{len(rounds)} rounds, targets {ready.turns.in_words()}")
    stop = _decided if stop_early else lambda _: False
    ask = Witness().ask if options.evidence else lambda _: None
    series.record(
        folder, facts, rounds, workers, extra, ask=ask, invalid=_invalid, decided=stop, show=show, shown=shown
    )
    return folder


def foresee(ready: Bakeoff, options: RunOptions, workers: int) -> Forecast:
    """What the bake-off would take. Nothing of it is sent: targets get the probe's one request each, and without the
    probe nothing at all; simulated ones aren't started. Raises InputError."""
    unseen = bool(ready.embedded) or not options.probe
    ready = replace(ready, targets=replays.held(ready.targets)) if unseen else ready.looked_at(options)
    rounds, limits = ready.ready(options, workers, unseen=unseen)
    return _forecast(rounds, limits, options)


def _forecast(rounds: Sequence[PlannedRound], limits: Limits, options: RunOptions) -> Forecast:
    asked = options.evidence and len(rounds) > 1
    return forecast(_sent(rounds), limits, extra(len(rounds)) if asked else NOTHING)


def _invalid(folder: Path) -> str:
    """Why nothing can be said by this round; "" where something can. Its warm-up is found first, where it is sought:
    what decides whether the series goes on must not count it."""
    from reports.analysis.summary import summarise
    from reports.analysis.validity import Status
    from reports.analysis.warmup import settle
    from reports.store.run_folder import open_run

    try:
        settle(folder)
        validity = summarise(open_run(folder)).validity
    except InputError as problem:
        return str(problem)
    if validity.status is not Status.INVALID:
        return ""
    first, *others = [reason.text for reason in validity.reasons if reason.status is Status.INVALID]
    return f"invalid: {first}" + (f", and {len(others)} more" if others else "")


def _decided(folder: Path) -> bool:
    """Is every gate decided by the rounds so far? The verdicts know from rounds.json that they are looked at often."""
    from reports.analysis.gates import decided
    from reports.analysis.summary import judge, own_gates
    from reports.store.run_folder import open_run

    run = open_run(folder)
    return decided(judge(run, own_gates(run)))
