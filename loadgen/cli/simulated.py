"""Simulated endpoints: `phaseload simulate` in virtual time, `phaseload serve` as a server."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from targets.simulated.settings import Options
from traces.errors import InputError

from ..load import Load
from ..options import RunOptions
from . import options as o

SIMULATED = "Simulated endpoints"
AXIS = "An axis of a grid: speedup=0.5..8, pool=1,2,4, link.bandwidth=1..50:6 (points, 8 unless given)."


@o.taking(
    omit=(
        "concurrency", "drain_timeout", "open_loop", "retries", "leave", "keep_ticks", "prompts", "tokenizer",
        "token_ids", "salt", "wait_ready", "probe", "report",
    ),
)  # fmt: skip
def simulate(
    *,
    trace: o.Trace = "",
    target: Annotated[list[str] | None, o.option(SIMULATED, "[NAME=]PROFILE[,KEY=VALUE...], repeatable.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model whose sizes set the speed.")] = "llama2-7b",
    setting: Annotated[
        list[str] | None, o.option(SIMULATED, "A setting of all targets.", "--set", metavar="KEY=VALUE")
    ] = None,
    sweep: Annotated[list[str] | None, o.option(SIMULATED, AXIS, metavar="KEY=VALUES")] = None,
    load: Load,
    run: RunOptions,
) -> None:
    """Plan with simulated endpoints in virtual time: an hour of traffic in a second, the same report.

    With --sweep, every combination is simulated on all cores, and planning.html shows TTFT, TPOT and cost against the
    load, what a hybrid gains, and where batching overtakes. The gates of --slo judge each point; the exit code is 0
    if at least one point meets all of them, else 1 (3 if too few requests decide it).

    Examples:

        phaseload simulate azure-conv --target a100,pool=4 --target groqrack,pool=14 --duration 600

        phaseload simulate conv.csv --target h100 --slo "ttft p99 < 800ms" --goodput "ttft:800 tpot:40"

        phaseload simulate azure-conv --duration 600 --target h100 --target h100-disagg --sweep speedup=0.5..8
    """
    from targets.simulated.build import SimulatedTarget
    from targets.simulated.settings import pairs

    from ..simulation import run as simulation

    shared = pairs(setting or [], "--set")
    targets = simulation.named([SimulatedTarget.parse(text, settings=shared) for text in target or []])
    if not sweep:
        from ..replays import conclude

        sys.exit(conclude(simulation.record_run(trace, targets, load, run, model=model)))
    from rich.console import Console

    from reports.render import planning_page

    from ..simulation import sweep as grids

    axes = dict(grids.axis(text) for text in sweep)
    planning = grids.sweep(trace, targets, axes, load, model=model, slo=run.slo, goodput=run.goodput, out=run.out)
    console = Console(soft_wrap=True)
    planning_page.print_points(planning, console)
    console.print(f"report: {planning.folder / planning_page.FILE}", markup=False, highlight=False)
    sys.exit(grids.outcome_code(planning))


@o.taking()
def serve(
    name: Annotated[str, typer.Argument(help="Profile or composition (see --list), or the path of a TOML file.")] = "",
    port: Annotated[int, typer.Option(help="Port, 0 for any free one.")] = 8000,
    *,
    options: Options,
    list_: Annotated[bool, typer.Option("--list", help="Show profiles with their standing, models, settings.")] = False,
    figures: Annotated[bool, typer.Option(help="With NAME: show each figure with its standing and source.")] = False,
) -> None:
    """Serve a simulated endpoint: the OpenAI and Groq APIs at the speed of the named hardware.

    Examples:

        phaseload serve --list

        phaseload serve h100 --model llama3-8b

        phaseload serve groqrack --pool 7 --limit-tokens 100000

        phaseload serve a100-40g --set policy=prefill-first --set engine=trtllm

        phaseload serve disaggregated --pool 1:6 --set link.bandwidth=11.5

        phaseload serve h100 --fault stall=0.01,reset=0.01

        phaseload serve h100 --leg sglang:prefill
    """

    if list_ or figures:
        from targets.simulated.profiles import load
        from targets.simulated.settings import catalogue

        typer.echo(load(name).sheet() if figures else catalogue())
        return
    if not name:
        raise InputError("which endpoint?", remedy="phaseload serve NAME; `phaseload serve --list` shows them")
    from targets.simulated.__main__ import run

    run(replace(options, name=name, port=port))
