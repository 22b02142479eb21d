"""A replay: one trace against one target, from its plan to its report. Bake-offs and capacity searches use the parts.

`prepare` plans it and checks what can be checked before anything is sent, Locust's processes record it
(`processes`, `run`), and what follows is made from the files of the run's folder alone: summary, report, verdicts.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from reports.store.run_json import EmbeddedFacts
from targets.target import Target
from traces.errors import INCOMPLETE, UNUSABLE, InputError, RunFailed
from traces.trace import Trace
from traces.words import Corpus

from . import plan as plans
from . import preflight, secrets
from .load import Load
from .options import RunKeywords, RunOptions
from .plan import Plan, Step
from .processes import LocustProcess, Workers

if TYPE_CHECKING:
    from rich.console import Console

    from reports.store.run_folder import Run


def replay(
    trace: Trace | str,
    target: Target,
    load: Load | None = None,
    *,
    workers: Workers | None = None,
    **options: Unpack[RunKeywords],
) -> Run:
    """Replays a trace against a target, waits for the end, and returns what was recorded.

    trace    a trace, or the name of a file or of a bundled workload
    load     how it is paced and cut; by default as it is
    workers  worker processes; by default Locust is one process
    options  see `RunOptions`

    Locust runs in a process of its own, which ends with the caller. Ctrl-C ends the run early; what was recorded by
    then is returned. Raises InputError before anything is sent, RunFailed where nothing was recorded.
    """
    workers = workers or Workers()
    folder = prepare(trace, target, load or Load(), RunOptions(**options), workers.count)
    return recorded(folder, workers)


def recorded(folder: Path, workers: Workers) -> Run:
    """Records the run that is planned in the folder; see `reported`. Raises RunFailed."""
    with LocustProcess(workers) as locust:
        locust.record(folder)
    return reported(folder)


def prepare(trace: Trace | str, target: Target, load: Load, options: RunOptions, workers: int) -> Path:
    """Plans a replay for so many worker processes, looks at its target, and saves the plan in the run's folder, which
    it returns. Raises InputError."""
    preflight.check_options(options, [target.endpoint_type])
    [target] = preflight.settled([target], options.wait_ready)
    plan, traces = planned(trace, target, load, options)
    preflight.check(plan, workers, [target], options.wait_ready, options.probe)
    folder = new_folder(plan.name, options.out)
    plans.save(plan, traces, folder)
    return folder


def planned(trace: Trace | str, target: Target, load: Load, options: RunOptions) -> tuple[Plan, dict[str, Trace]]:
    """The plan of a replay, one step with one target, and its requests by file."""
    requests, file = load.requests(trace), plans.step_file(0)
    step = plans.step_of(file, "replay", load, [target], requests)
    return plan_of(name_of(trace), [step], requests, load.seed, options, order="parallel"), {file: requests}


def plan_of(
    name: str,
    steps: Sequence[Step],
    requests: Trace,
    seed: int,
    options: RunOptions,
    *,
    order: str,
    closing: str = "",
    embedded: Mapping[str, EmbeddedFacts] | None = None,
) -> Plan:
    """A plan of these steps, the first of which sends `requests`."""
    corpus = None if options.prompts is None else Corpus.read(options.prompts)
    if corpus is not None and options.tokenizer is None:
        corpus.check_words()
    return Plan(
        name, tuple(steps), seed, options.salt, options.tokenizer, options.token_ids,
        prompts=None if corpus is None else corpus.facts(), slo=tuple(options.slo), goodput=tuple(options.goodput),
        trace=plans.trace_facts(requests), argv=tuple(secrets.argv()), order=order, json=options.json,
        report=options.report, closing=closing, embedded=embedded or {},
    )  # fmt: skip


def name_of(trace: Trace | str) -> str:
    """A short name for runs of a trace, or of the one of that name."""
    name = trace if isinstance(trace, str) else trace.name
    return "stdin" if name == "-" else Path(name).name.partition(".")[0] or "trace"


def new_folder(name: str, out: str | Path | None = None) -> Path:
    """A run's folder, made now: `out`, or runs/<name>-<time>. Raises InputError where it holds something already (no
    run is ever overwritten) or can't be made."""
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
    from reports.analysis.summary import save  # pandas and matplotlib take seconds, which a mere plan is spared
    from reports.render import html
    from reports.store.run_folder import open_run

    try:
        run = open_run(folder)
    except InputError as problem:
        raise RunFailed(f"nothing was recorded: {problem}") from None
    summary = save(run)
    if run.facts.report:
        html.page([run], [summary])
    return run


def run_report(folder: Path) -> tuple[int, str]:
    """Writes a recorded run's summary and report; gives the exit code and the text that the command line has for it."""
    from rich.console import Console

    text = io.StringIO()
    code = conclude(folder, Console(file=text, soft_wrap=True))
    return code, text.getvalue()


def conclude(folder: Path, console: Console | None = None) -> int:
    """Writes summary.json and report.html, prints them and the gates' verdicts, returns the exit code."""
    from rich.console import Console

    from reports.analysis.summary import save
    from reports.analysis.verdicts import exit_code, judge
    from reports.render import text
    from reports.store import run_folder, run_json

    facts = run_json.read(folder)
    console = console or Console(stderr=facts.json, soft_wrap=True)
    try:
        run = run_folder.open_run(folder)
        summary = save(run)
    except InputError as error:
        console.print(f"nothing to report: {error}", markup=False)
        return INCOMPLETE
    text.print_summary(summary, console)
    try:
        verdicts = judge(summary, facts.slo)
        text.print_verdicts(verdicts, console)
        code = exit_code(verdicts, summary.validity.status)
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
    return INCOMPLETE if facts.ended in ("worker_lost", "interrupted") else code
