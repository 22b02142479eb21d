"""How much load does an endpoint take? `phaseload capacity`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated, TypeVar

import typer

from traces.errors import InputError, RunFailed

from ..options import Load, RunOptions, TargetOptions
from ..processes import Workers
from . import options as o
from .runs import replay

Group = TypeVar("Group", Load, RunOptions, TargetOptions, Workers)


@o.taking(
    omit=(
        "speedup", "request_rate", "concurrency", "request_count", "web_port", "salt", "wait_ready", "probe",
        "quota_scale", "evidence", "prompts", "tokenizer", "token_ids", "ignore_eos", "extra_body", *o.REMOTE,
    ),
)  # fmt: skip
def capacity(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    url: o.Url = None,
    options: TargetOptions,
    simulate: Annotated[
        str | None, o.option(o.TARGET, "Instead of a URL: a simulated endpoint, PROFILE[,KEY=VALUE...].")
    ] = None,
    by: Annotated[str, o.option(o.LOAD, "What is raised: rate (requests/s), or concurrency (in flight).")] = "rate",
    lowest: Annotated[float, o.option(o.LOAD, "Load of the first step.", "--from")] = 1.0,
    highest: Annotated[float, o.option(o.LOAD, "Load that is never exceeded.", "--to")] = 1000.0,
    precision: Annotated[float, o.option(o.LOAD, "How close the bisection goes: 0.1 is 10 %.")] = 0.1,
    duration: Annotated[float, o.time(o.LOAD, "Window of a step, at least.", "--duration")] = 30.0,
    max_step: Annotated[float, o.time(o.LOAD, "Window of a step, at most.", "--max-step")] = 180.0,
    budget: Annotated[float, o.time(o.LOAD, "Time of the whole search, at most.", "--budget")] = 3600.0,
    warmup: Annotated[float, o.time(o.LOAD, "Before a window, at least; a third of it is more.", "--warmup")] = 5.0,
    load: Load,
    run: RunOptions,
    workers: Workers,
) -> None:
    """Find the highest load at which every gate holds, as an interval: 18.2 to 20.1 requests/s.

    The load doubles until a gate fails, then the interval is halved; what a step can't decide is run longer, and three
    fresh slices of the trace confirm the answer. Each step is a run of its own; `phaseload report FOLDER` draws the
    curve again. Exit codes: 0 an interval, 1 no load holds, 2 unusable input, 3 no verdict within the budget, and what
    would decide it. What follows `--` goes to `phaseload replay` as it is.

    Examples:

        phaseload capacity azure-conv --url http://127.0.0.1:8000 -m m --slo "ttft p99 < 800ms" --slo "errors < 1%"

        phaseload capacity azure-code --url http://gpu:8000 -m m --from 4 --to 64 --slo "tpot p99 < 40ms" -- --no-probe

        phaseload capacity azure-conv --url http://gpu:8000 -m m --by concurrency --slo "tpot p99 < 40ms"

        phaseload capacity azure-conv --simulate h100 --max-context 4096 --slo "ttft p99 < 800ms"
    """
    from rich.console import Console

    from reports.analysis.capacity import in_words
    from reports.analysis.gate_grammar import Gate
    from reports.store.capacity_json import CapacityStep, SearchTerms
    from targets.simulated.build import SimulatedTarget
    from targets.simulated.profiles import MODEL
    from traces.typed_json import from_plain

    from .. import capacities

    console = Console(highlight=False, soft_wrap=True, stderr=run.json)
    more = o.parsed(replay, ctx.args)
    load = _overridden(replace(load, duration=duration, warmup=warmup), more)
    run, options, workers = _overridden(run, more), _overridden(options, more), _overridden(workers, more)
    if simulate and (url or more.params["url"]):
        raise InputError("can't be combined with --url", where="--simulate", remedy="give one of them")
    target = SimulatedTarget.parse(simulate) if simulate else options.target(more.params["url"] or url)
    terms = from_plain(SearchTerms, {"by": by}, "--by")
    terms = replace(terms, lowest=lowest, highest=highest, precision=precision, max_step_s=max_step, budget_s=budget)
    console.print(f"at most {budget / 60:,.3g} minutes; a step's window is {duration:g} to {max_step:g} s")

    def show(step: CapacityStep, gates: list[Gate]) -> None:
        console.print(in_words(step, gates, terms), markup=False)

    try:
        found = capacities.find(
            trace, target, load, terms, run, workers, show, more.args, model=options.model or MODEL, shown=True
        )
    except RunFailed as failure:
        sys.stderr.write(f"phaseload: {failure}\n")
        raise typer.Exit(failure.code) from None
    if run.json:
        o.print_json(found.as_json())
    console.print(found.sentence, markup=False)
    if found.remedy:
        console.print(found.remedy, markup=False)
    if run.report:
        console.print(f"report: {found.folder / 'report.html'}", markup=False)
    raise typer.Exit(found.code)


def _overridden(group: Group, more: typer.Context) -> Group:
    return replace(group, **o.given(more, type(group)))
