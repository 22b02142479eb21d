"""`phaseload capacity`: the highest rate that an endpoint takes within its objectives."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated, TypeVar

import typer

from ..load import Load
from ..options import RunOptions, TargetOptions
from ..processes import Workers
from . import options as o
from .replay import replay

Group = TypeVar("Group", Load, RunOptions, TargetOptions, Workers)

Lowest = Annotated[float, typer.Option("--from", help="Rate of the first step, requests/s.", rich_help_panel=o.LOAD)]
Highest = Annotated[float, typer.Option("--to", help="Rate that is never exceeded.", rich_help_panel=o.LOAD)]
Precision = Annotated[float, typer.Option(help="How close the answer must be: 0.1 is 10 %.", rich_help_panel=o.LOAD)]
StepDuration = Annotated[
    float, typer.Option("--duration", help="Seconds of a step; longer where p99 needs it.", rich_help_panel=o.LOAD)
]
Warmup = Annotated[float, o.OPTIONS["warmup"]]


@o.taking(
    options=TargetOptions, load=Load, run=RunOptions, workers=Workers,
    omit=(
        "speedup", "request_rate", "concurrency", "request_count", "web_port", "salt", "wait_ready", "probe", "report",
        "json", "prompts", "tokenizer", "token_ids", "ignore_eos", "extra_body", *o.REMOTE,
    ),
)  # fmt: skip
def capacity(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    url: o.Url = None,
    options: TargetOptions,
    lowest: Lowest = 1.0,
    highest: Highest = 1000.0,
    precision: Precision = 0.1,
    duration: StepDuration = 30.0,
    warmup: Warmup = 5.0,
    load: Load,
    run: RunOptions,
    workers: Workers,
) -> None:
    """Find the highest request rate at which every gate holds.

    Each step is a replay of its own, in a folder of its own. The rate doubles until a gate fails, then the interval is
    halved. What follows `--` goes to `phaseload replay` as it is.

    Examples:

        phaseload capacity azure-conv --url http://127.0.0.1:8000 -m m --slo "ttft p99 < 800ms" --slo "errors < 1%"

        phaseload capacity azure-code --url http://gpu:8000 -m m --from 4 --to 64 --slo "tpot p99 < 40ms" -- --no-probe
    """
    from rich.console import Console

    from traces.errors import RunFailed

    from .. import capacities

    console = Console(highlight=False)
    within = capacities.Range(lowest, highest, precision)
    more = o.parsed(replay, ctx.args)
    load = _overridden(replace(load, duration=duration, warmup=warmup), more)
    run, options, workers = _overridden(run, more), _overridden(options, more), _overridden(workers, more)
    url = more.params["url"] or url
    target = options.target(url)

    def show(step: capacities.CapacityStep) -> None:
        console.print(f"{step.rate:8.3g}/s  {'holds' if step.holds else 'fails'}   {step.folder}")

    try:
        result = capacities.find(trace, target, load, within, run, workers, show, more.args, shown=True)
    except RunFailed as failure:
        sys.stdout.write(failure.report)
        sys.stderr.write(f"phaseload: {failure}\n")
        raise typer.Exit(failure.code) from None
    bracket = result.bracket
    beyond = "the highest rate asked for" if bracket.fails is None else f"at {bracket.fails:.3g}/s a gate fails"
    answer = f"capacity: {bracket.holds:.3g} requests/s ({beyond})" if bracket.holds else f"no rate holds: {beyond}"
    console.print(answer)
    raise typer.Exit(0 if bracket.holds else 1)


def _overridden(group: Group, more: typer.Context) -> Group:
    """The group of options with what stands after `--`."""
    return replace(group, **o.given(more, type(group)))
