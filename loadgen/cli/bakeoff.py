"""`phaseload bakeoff`: the same trace against several endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..load import Answers, Endpoint, Gates, Load
from ..run.spawn import Workers
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


@o.taking(endpoint=Endpoint, load=Load, answers=Answers, gates=Gates, workers=Workers, omit=o.REMOTE)
def bakeoff(
    ctx: typer.Context,
    *,
    target: Targets = None,
    targets: TargetsFile = None,
    endpoint: Endpoint,
    wait_ready: o.WaitReady = None,
    probe: o.Probe = True,
    order: Order = None,
    steps: Steps = None,
    step_duration: StepDuration = None,
    load: Load,
    salt: o.Salt = "auto",
    answers: Answers,
    gates: Gates,
    out: o.Out = None,
    report: o.Report = True,
    as_json: o.Json = False,
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
    from .. import bakeoffs as contest
    from .. import plan as plans
    from .. import planner, preflight, secrets
    from ..run import endpoints, spawn
    from . import target_options

    preflight.check_prompts(answers, endpoint.endpoint_type)
    preflight.check_gates(gates)
    if order is not None:
        target_options.choice(order, "--order", contest.ORDERS)
    given, common = o.given(ctx, load), planner.common(salt, answers, gates)
    record = {"argv": secrets.argv(), "json": as_json, "report": report}
    if target or targets:
        ladder = contest.steps(contest.own(given), target_options.factors(steps or "1"), step_duration)
        specs = preflight.settled(target_options.several(target or [], targets, endpoint, answers), wait_ready)
        plan, traces = contest.plan("bakeoff", ladder, specs, order or "sequential", record=record, **common)
        preflight.check(plan, workers.count, specs, wait_ready, probe)
        folder = planner.new_folder("bakeoff", out)
    else:
        base, model = contest.demonstration(given), endpoint.model or contest.MODEL
        ladder = contest.steps(
            base, target_options.factors(steps or contest.DEMO_STEPS), step_duration or contest.DEMO_STEP_S
        )
        field = contest.sized(contest.THREE, base)
        folder = planner.new_folder("bakeoff", out)
        specs = endpoints.start(field, model, folder / "endpoints")
        record |= {"embedded": contest.embedded(field, model), "closing": contest.DEMONSTRATION}
        plan, traces = contest.plan("bakeoff", ladder, specs, order or "parallel", record=record, **common)
        preflight.check(plan, workers.count)
    plans.save(plan, traces, folder)
    spawn.run(folder, workers, ctx.args)
