"""A replay: one trace against one target, from its plan to its report. Bake-offs and capacity searches use the parts.

`prepare_run` plans a run and checks what can be checked before anything is sent, Locust's processes record it
(`processes`, `run`), and what follows is made from the files of the run's folder alone: summary, report, verdicts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from reports.store.run_json import EmbeddedFacts
from targets import secrets
from targets.target import Target
from traces.errors import FAILED, INCOMPLETE, UNUSABLE, InputError, RunFailed
from traces.trace import Trace
from traces.words import Corpus

from . import plan as plans
from . import preflight, quotas
from .forecast import Forecast, forecast
from .options import Load, RunKeywords, RunOptions
from .plan import Groups, LoadStep, Plan
from .processes import LocustProcess, Workers
from .quotas import Limits, Round

if TYPE_CHECKING:
    from rich.console import Console

    from reports.analysis.summary import Summary
    from reports.store.run_folder import Run


def replay(
    trace: Trace | str | Path, target: Target, load: Load | None = None, *, workers: Workers | None = None,
    **options: Unpack[RunKeywords],
) -> Run:  # fmt: skip
    """Replays a trace against a target, waits for the end, and returns what was recorded.

    trace    a trace, or the name of a file or of a bundled workload
    load     how it is paced and cut; by default as it is
    workers  worker processes; by default Locust is one process
    options  the fields of `RunOptions`: out, slo, goodput, salt, prompts, tokenizer, wait_ready, probe, ...

    Locust runs in a process of its own, which ends with the caller. Ctrl-C ends the run early; what was recorded by
    then is returned. Raises InputError before anything is sent, RunFailed where nothing was recorded.
    """
    workers = workers or Workers()
    folder = prepare(trace, target, load or Load(), RunOptions.of(options), workers.count)
    return recorded(folder, workers)


def recorded(folder: Path, workers: Workers) -> Run:
    """Records the run that is planned in the folder; see `reported`. Raises RunFailed."""
    with LocustProcess(workers) as locust:
        locust.record(folder)
    return reported(folder)


def prepare(trace: Trace | str | Path, target: Target, load: Load, options: RunOptions, workers: int) -> Path:
    step = LoadStep("replay", load, load.requests(trace))
    return prepare_run(name_of(trace), [step], [target], options, workers)


def prepare_run(
    name: str, steps: Sequence[LoadStep], targets: Sequence[Target], options: RunOptions, workers: int
) -> Path:  # fmt: skip
    """Plans a run for so many worker processes (see `planned`), looks at its targets and their quotas, and saves the
    plan in the run's folder, which it returns. Raises InputError."""
    (plan, traces), limits = _ready(name, steps, targets, options, workers)
    quotas.check([(plan, traces)], limits)
    folder = new_folder(name, options.out)
    plans.save(plan, traces, folder)
    return folder


def foresee(trace: Trace | str | Path, target: Target, load: Load, options: RunOptions, workers: int) -> Forecast:
    """What a replay would take. Nothing of it is sent: the target gets the probe's one request, and without the probe
    nothing at all. Raises InputError."""
    step = LoadStep("replay", load, load.requests(trace))
    ready, limits = _ready(name_of(trace), [step], [target], options, workers, unseen=not options.probe)
    return forecast([ready], limits)


def _ready(
    name: str, steps: Sequence[LoadStep], targets: Sequence[Target], options: RunOptions, workers: int, *,
    unseen: bool = False,
) -> tuple[Round, Limits]:  # fmt: skip
    """The plan with its requests, and what its targets are known to admit; `unseen`: they are sent nothing."""
    preflight.check_options(options, [target.endpoint_type for target in targets])
    targets = held(targets) if unseen else settled(targets, options)
    plan, _ = planned(name, steps, targets, options)
    seen = preflight.check(plan, workers, [] if unseen else targets, options.wait_ready, options.probe)
    limits = preflight.limits_stated(targets) | seen

    def at(share: float) -> Round:
        return planned(name, steps, targets, options, quota_scale=share)

    return at(quotas.share_of(options.quota_scale, lambda share: [at(share)], limits)), limits


def settled(targets: Sequence[Target], options: RunOptions) -> list[Target]:
    """The targets as plans hold them, secrets put away, their types and models known. Raises InputError."""
    return preflight.settled(held(targets), options.wait_ready)


def held(targets: Sequence[Target]) -> list[Target]:
    """The targets as plans hold them, but for what their servers say. Raises InputError."""
    return [target.carried().sheltered() for target in targets]


def planned(
    name: str, loads: Sequence[LoadStep], targets: Sequence[Target], options: RunOptions, *,
    groups: Groups | None = None, order: str = "parallel", closing: str = "",
    embedded: Mapping[str, EmbeddedFacts] | None = None, quota_scale: float = 1.0,
) -> tuple[Plan, dict[str, Trace]]:  # fmt: skip
    """The plan of a run and its requests by file. `groups`: names of the targets of each load step that run together,
    one group after the other (all of them unless given); `order` says in a word how that was chosen; `quota_scale`: the
    share of the loads' sessions that are sent."""
    corpus = None if options.prompts is None else Corpus.read(options.prompts)
    if corpus is not None and options.tokenizer is None:
        corpus.check_words()
    named = {target.name: target for target in targets}
    loads = [load.thinned(quota_scale) for load in loads]
    files = {plans.step_file(number): load for number, load in enumerate(loads)}
    steps = [
        load.step(file, [named[each] for each in group])
        for file, load in files.items()
        for group in (groups[load.name] if groups else [named])
    ]
    plan = Plan(
        name, tuple(steps), loads[0].load.seed, options.salt, options.tokenizer, options.token_ids,
        prompts=None if corpus is None else corpus.facts(), slo=tuple(options.slo), goodput=tuple(options.goodput),
        trace=plans.trace_facts(loads[0].requests), argv=tuple(secrets.argv()), order=order, json=options.json,
        report=options.report, closing=closing, embedded=embedded or {}, listed=tuple(named) if groups else (),
        quota_scale=quota_scale,
    )  # fmt: skip
    return plan, {file: load.requests for file, load in files.items()}


def name_of(trace: Trace | str | Path) -> str:
    name = trace.name if isinstance(trace, Trace) else str(trace)
    return "stdin" if name == "-" else Path(name).name.partition(".")[0] or "trace"


def new_folder(name: str, out: str | Path | None = None) -> Path:
    """A run's folder, made now: `out`, or runs/<name>-<time>. Raises InputError where it holds something already or
    can't be made."""
    if out is None:
        return numbered(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        remedy = "runs are never overwritten: name another"
        raise InputError("holds something already", where=str(folder), remedy=remedy)
    return _made(folder, exist_ok=True)


def numbered(path: Path) -> Path:
    """The folder, made now; -2, -3, ... is added to a name that is taken."""
    for number in range(1, 10_000):
        try:
            return _made(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        except FileExistsError:
            continue
    raise InputError("no free name for a run", where=str(path))


def _made(folder: Path, *, exist_ok: bool = False) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as problem:
        remedy = "name another folder with --out"
        raise InputError(f"can't be made: {problem.strerror}", where=str(folder), remedy=remedy) from None
    return folder


def reported(folder: Path) -> Run:
    """Opens a recorded run, and writes its summary and, where it is to have one, its report. Raises RunFailed."""
    from reports.render import html  # pandas and matplotlib take seconds, which a mere plan is spared

    run, summary = summarised(folder)
    if run.facts.report:
        html.page([run], [summary])
    return run


def summarised(folder: Path) -> tuple[Run, Summary]:
    from reports.analysis.summary import save
    from reports.analysis.warmup import settle
    from reports.store.run_folder import open_run

    try:
        settle(folder)
        run = open_run(folder)
        return run, save(run)
    except InputError as problem:
        raise RunFailed(f"nothing was recorded: {problem}") from None


def conclude(folder: Path, console: Console | None = None) -> int:
    """Writes summary.json and report.html, prints them and the gates' verdicts, returns the exit code."""
    from rich.console import Console

    from reports.analysis.gates import exit_code
    from reports.analysis.summary import judge, own_gates
    from reports.analysis.validity import Status
    from reports.render import text

    try:
        run, summary = summarised(folder)
    except RunFailed as problem:
        (console or Console(stderr=True, soft_wrap=True)).print(str(problem), markup=False)
        return INCOMPLETE
    facts = run.facts
    console = console or Console(stderr=facts.json, soft_wrap=True)
    counted = sum(result.counts.counted for result in summary.results)
    all_failed = counted > 0 and not any(result.counts.ok for result in summary.results)
    if all_failed:
        console.print(f"every request failed: {counted:,} of {counted:,}")
    text.print_summary(summary, console)
    try:
        verdicts = judge(summary, own_gates(run))
        text.print_verdicts(verdicts, summary.validity, console)
        code = exit_code(verdicts, summary.validity.status)
        if all_failed and summary.validity.status is not Status.INVALID:
            code = FAILED
    except InputError as error:
        console.print(str(error), markup=False)
        code = UNUSABLE
    if facts.report:
        from reports.render import html  # its figures cost half a second

        console.print(f"report: {html.page([run], [summary])}", markup=False, highlight=False)
    if facts.closing:
        console.print(facts.closing, markup=False, highlight=False)
    if facts.json:
        sys.stdout.write((folder / "summary.json").read_text() + "\n")
    ended = run.series.ended if run.series else facts.ended
    return INCOMPLETE if ended in ("worker_lost", "interrupted") else code
