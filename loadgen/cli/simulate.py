"""`phaseload simulate`: a trace through simulated endpoints in virtual time, and grids of such runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..load import Load
from ..options import RunOptions
from . import options as o

SIMULATED = "Simulated endpoints"


@o.taking(
    load=Load, run=RunOptions,
    omit=(
        "concurrency", "drain_timeout", "open_loop", "retries", "leave", "keep_ticks", "prompts", "tokenizer",
        "token_ids", "salt", "wait_ready", "probe", "report",
    ),
)  # fmt: skip
def simulate(
    *,
    trace: o.Trace = "",
    target: Annotated[
        list[str] | None, typer.Option(help="[NAME=]PROFILE[,KEY=VALUE...], repeatable.", rich_help_panel=SIMULATED)
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model whose sizes set the speed.")] = "llama2-7b",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all targets.", rich_help_panel=SIMULATED),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="An axis of a grid: speedup=0.5..8, pool=1,2,4, link.bandwidth=1..50:6 (points, 8 unless given).",
            rich_help_panel=SIMULATED,
        ),
    ] = None,
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
