"""`phaseload bakeoff`: several targets under the same load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traces.errors import InputError

from ..options import Load, RunOptions, TargetOptions
from ..processes import Workers, become_locust
from . import options as o


@o.taking(omit=o.REMOTE)
def bakeoff(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    target: Annotated[
        list[str] | None, o.option(o.TARGET, "NAME=URL, repeatable; instead of the simulated three.", "--target", "-t")
    ] = None,
    targets: Annotated[
        Path | None, o.option(o.TARGET, "A targets.toml with everything about them.", "--targets")
    ] = None,
    options: TargetOptions,
    order: Annotated[
        str | None, o.option(o.LOAD, "parallel (simulated ones), or sequential (yours): each alone.")
    ] = None,
    steps: Annotated[str | None, o.option(o.LOAD, "Load steps as factors: 1,2,4 (simulated: 0.1,1,3).")] = None,
    step_duration: Annotated[float | None, o.time(o.LOAD, "How long each step takes but the base (factor 1).")] = None,
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
