"""`phaseload bakeoff`: the same trace against several endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..load import Load
from ..options import RunOptions, TargetOptions
from ..processes import Workers
from . import options as o

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help="NAME=URL, repeatable; instead of the simulated three.", rich_help_panel=o.TARGET
    ),
]
TargetsFile = Annotated[
    Path | None, typer.Option("--targets", help="A targets.toml with everything about them.", rich_help_panel=o.TARGET)
]
Order = Annotated[
    str | None,
    typer.Option(help="parallel (simulated ones), or sequential (yours): each alone.", rich_help_panel=o.LOAD),
]
Steps = Annotated[
    str | None,
    typer.Option(help="Load steps as factors: 1,2,4 (simulated: 0.1,1,3).", rich_help_panel=o.LOAD),
]
StepDuration = Annotated[
    float | None, typer.Option(help="Seconds of each step but the base (factor 1).", rich_help_panel=o.LOAD)
]


@o.taking(options=TargetOptions, load=Load, run=RunOptions, workers=Workers, omit=o.REMOTE)
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
    from .. import bakeoffs, processes

    ladder = bakeoffs.Ladder(_factors(steps) if steps else None, step_duration, order)
    workload = trace or bakeoffs.WORKLOAD
    if target or targets:
        chosen = options.targets(target or [], targets)
        folder = bakeoffs.prepare(workload, chosen, load, ladder, run, workers.count)
    else:
        base = bakeoffs.demonstration_load(o.given(ctx, Load), own_trace=bool(trace))
        model = options.model or bakeoffs.MODEL
        folder = bakeoffs.prepare_demonstration(workload, base, ladder, run, workers.count, model=model)
    processes.become_locust(folder, workers, ctx.args)


def _factors(text: str) -> list[float]:
    """Load steps: "1,2,4". Raises InputError."""
    from traces.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected positive factors such as 1,2,4, got {text!r}", where="--steps") from None
