"""What replays: `phaseload replay`, `bakeoff` and `capacity`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from traces.errors import InputError, RunFailed

from ..load import Load
from ..options import RunOptions, TargetOptions
from ..processes import Workers, become_locust
from . import options as o


@o.taking()
def replay(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    url: o.Url = None,
    options: TargetOptions,
    load: Load,
    run: RunOptions,
    workers: Workers,
) -> None:
    """Replay a trace against an endpoint, and report TTFT and TPOT.

    What follows `--` goes to Locust as it is. Exit codes: 0 all gates hold, 1 one doesn't, 2 unusable input, 3 no
    verdict: the run was interrupted or is invalid. SIGINT, SIGTERM and SIGHUP end a run and report it.

    Examples:

        phaseload replay azure-conv --url http://127.0.0.1:8000 -m llama-3.1-8b --duration 60

        phaseload replay conv.csv --url http://gpu:8000 -m m --speedup 2 --slo "ttft p99 < 800ms"

        phaseload replay chats.jsonl --url https://api.groq.com --endpoint-type groq --api-key-env GROQ_API_KEY -m m
    """
    from .. import replays

    if workers.worker:
        become_locust(None, workers, ctx.args)
    folder = replays.prepare(trace, options.target(url), load, run, workers.count)
    become_locust(folder, workers, ctx.args)


Targets = Annotated[
    list[str] | None,
    o.option(o.TARGET, "NAME=URL, repeatable; instead of the simulated three.", "--target", "-t"),
]
TargetsFile = Annotated[Path | None, o.option(o.TARGET, "A targets.toml with everything about them.", "--targets")]
Order = Annotated[str | None, o.option(o.LOAD, "parallel (simulated ones), or sequential (yours): each alone.")]
Steps = Annotated[str | None, o.option(o.LOAD, "Load steps as factors: 1,2,4 (simulated: 0.1,1,3).")]
StepDuration = Annotated[float | None, o.option(o.LOAD, "Seconds of each step but the base (factor 1).")]


@o.taking(omit=o.REMOTE)
def bakeoff(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    target: Targets = None,
    targets: TargetsFile = None,
    options: TargetOptions,
    order: Order = None,
    steps: Steps = None,
    step_duration: StepDuration = None,
    load: Load,
    run: RunOptions,
    workers: Workers,
) -> None:
    """Replay one trace against several endpoints, and compare them phase by phase.

    Without --target it demonstrates itself on three simulated ones: an A100 pool, a GroqRack pool, and A100 prefill
    with GroqRack decode.

    Examples:

        phaseload bakeoff

        phaseload bakeoff conv.csv --target gpu=http://gpu:8000 --target groq=https://api.groq.com/openai -m m

        phaseload bakeoff azure-code --targets targets.toml --duration 120 --steps 1,2,4 --slo "gpu: ttft p99 < 1s"
    """
    from .. import bakeoffs

    ladder = bakeoffs.Ladder(_factors(steps) if steps else None, step_duration, order)
    workload = trace or bakeoffs.WORKLOAD
    if target or targets:
        chosen = options.targets(target or [], targets)
        folder = bakeoffs.prepare(workload, chosen, load, ladder, run, workers.count)
    else:
        base = bakeoffs.demonstration_load(o.given(ctx, Load), own_trace=bool(trace))
        model = options.model or bakeoffs.MODEL
        folder = bakeoffs.prepare_demonstration(workload, base, ladder, run, workers.count, model=model)
    become_locust(folder, workers, ctx.args)


def _factors(text: str) -> list[float]:
    """Load steps: "1,2,4". Raises InputError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected positive factors such as 1,2,4, got {text!r}", where="--steps") from None


Group = TypeVar("Group", Load, RunOptions, TargetOptions, Workers)

Lowest = Annotated[float, o.option(o.LOAD, "Rate of the first step, requests/s.", "--from")]
Highest = Annotated[float, o.option(o.LOAD, "Rate that is never exceeded.", "--to")]
Precision = Annotated[float, o.option(o.LOAD, "How close the answer must be: 0.1 is 10 %.")]
SearchDuration = Annotated[float, o.option(o.LOAD, "Seconds of a step; longer where p99 needs it.", "--duration")]
Warmup = Annotated[float, o.OPTIONS["warmup"]]


@o.taking(
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
    duration: SearchDuration = 30.0,
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

    from .. import capacities

    console = Console(highlight=False)
    within = capacities.Range(lowest, highest, precision)
    more = o.parsed(replay, ctx.args)
    load = _overridden(replace(load, duration=duration, warmup=warmup), more)
    run, options, workers = _overridden(run, more), _overridden(options, more), _overridden(workers, more)
    target = options.target(more.params["url"] or url)

    def show(step: capacities.CapacityStep) -> None:
        console.print(f"{step.rate:8.3g}/s  {'holds' if step.holds else 'fails'}   {step.folder}")

    try:
        result = capacities.find(trace, target, load, within, run, workers, show, more.args, shown=True)
    except RunFailed as failure:
        sys.stdout.write(failure.report)
        sys.stderr.write(f"phaseload: {failure}\n")
        raise typer.Exit(failure.code) from None
    rate, fails = result.rate, result.bracket.fails
    beyond = "the highest rate asked for" if fails is None else f"at {fails:.3g}/s a gate fails"
    console.print(f"capacity: {rate:.3g} requests/s ({beyond})" if rate else f"no rate holds: {beyond}")
    raise typer.Exit(0 if rate else 1)


def _overridden(group: Group, more: typer.Context) -> Group:
    """The group of options with what stands after `--`."""
    return replace(group, **o.given(more, type(group)))
