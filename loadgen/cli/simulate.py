"""`phaseload simulate`: a trace through simulated endpoints in virtual time, and grids of such runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..load import Load, RunOptions
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
        list[str] | None,
        typer.Option(help="[NAME=]PROFILE[,KEY=VALUE...], repeatable.", rich_help_panel=SIMULATED),
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
    load, what a hybrid gains, and where batching overtakes. The gates of --slo then ask each point; the exit code is 0
    if at least one point meets all of them, else 1 (3 if too few requests decide it).

    Examples:

        phaseload simulate azure-conv --target a100,pool=4 --target groqrack,pool=14 --duration 600

        phaseload simulate conv.csv --target h100 --slo "ttft p99 < 800ms" --goodput "ttft:800 tpot:40"

        phaseload simulate azure-conv --duration 600 --target h100 --target h100-disagg --sweep speedup=0.5..8
    """
    from targets.simulated.settings import pairs
    from traces.errors import InputError

    from .. import folders, pacing, preflight, secrets
    from ..run import finish
    from ..simulation import virtual_run

    if not target:
        raise InputError("is missing", where="--target", remedy="a profile; `phaseload serve --list` shows them")
    chosen = virtual_run.subjects(target, pairs(setting or [], "--set"))
    preflight.check_gates(run)
    name = f"simulate-{folders.name_of(trace)}"
    if sweep:
        from ..simulation import sweeps

        code = sweeps.run(chosen, trace, load, sweep, run.out, name=name, model=model, goodput=run.goodput, slo=run.slo)
        sys.exit(code)
    for subject in chosen:
        subject.build(model)
    requests = pacing.requests(trace, load)
    folder = folders.new_folder(name, run.out)
    virtual_run.run(
        chosen, load, requests, folder, model=model,
        argv=secrets.argv(), slo=run.slo, goodput=run.goodput, json=run.json,
    )  # fmt: skip
    sys.exit(finish.conclude(folder))
