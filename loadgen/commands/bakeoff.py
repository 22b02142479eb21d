"""`phaseload bakeoff`: the same trace against several endpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o

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


def bakeoff(
    ctx: typer.Context,
    trace: o.TraceFile = None,
    target: Targets = None,
    targets: TargetsFile = None,
    order: Order = None,
    steps: Steps = None,
    step_duration: StepDuration = None,
    model: o.Model = "",
    endpoint_type: o.EndpointType = "chat",
    api_key_env: o.ApiKeyEnv = None,
    api_key_file: o.ApiKeyFile = None,
    header: o.Header = None,
    insecure: o.Insecure = False,
    ca_file: o.CaFile = None,
    wait_ready: o.WaitReady = None,
    probe: o.Probe = True,
    speedup: o.Speedup = 1.0,
    request_rate: o.RequestRate = None,
    burstiness: o.Burstiness = 1.0,
    concurrency: o.Concurrency = None,
    duration: o.Duration = None,
    warmup: o.Warmup | None = None,
    drain_timeout: o.DrainTimeout | None = None,
    request_count: o.RequestCount = None,
    max_context: o.MaxContext = None,
    open_loop: o.OpenLoop = False,
    retries: o.Retries = 0,
    leave: o.Leave = 0.0,
    skip_bad_rows: o.SkipBadRows = False,
    keep_ticks: o.KeepTicks = False,
    seed: o.Seed = 0,
    salt: o.Salt = "auto",
    tokenizer: o.Tokenizer = None,
    token_ids: o.TokenIds = None,
    ignore_eos: o.IgnoreEos = None,
    extra_body: o.ExtraBody = None,
    slo: o.Slo = None,
    goodput: o.Goodput = None,
    out: o.Out = None,
    report: o.Report = True,
    as_json: o.Json = False,
    processes: o.Processes = None,
    web_port: o.WebPort = None,
) -> None:
    """Replay one trace against several endpoints, and compare them phase by phase.

    Without --target it demonstrates itself on three simulated ones: an A100 pool, a GroqRack pool, and A100 prefill
    with GroqRack decode.

    Examples:

        phaseload bakeoff

        phaseload bakeoff conv.csv --target gpu=http://gpu:8000 --target groq=https://api.groq.com/openai -m m

        phaseload bakeoff azure-code --targets targets.toml --duration 120 --steps 1,2,4 --slo "gpu: ttft p99 < 1s"
    """
    from .. import bakeoff as contest
    from .. import become, endpoints, planning, targeting
    from .. import plan as plans

    simulated = not target and not targets
    workers = become.Workers(processes=processes, web_port=web_port)
    targeting.check_prompts(tokenizer, token_ids, endpoint_type)
    targeting.check_gates(slo or [], goodput or [])
    order = targeting.choice(order or ("parallel" if simulated else "sequential"), "--order", contest.ORDERS)
    factors = targeting.factors(steps or (contest.DEMO_STEPS if simulated else "1"))
    given: dict[str, Any] = {
        "trace": trace, "request_rate": request_rate, "concurrency": concurrency, "duration": duration,
        "warmup": warmup, "drain_timeout": drain_timeout, "request_count": request_count, "max_context": max_context,
    }  # fmt: skip
    load = replace(
        contest.base(simulated, trace, concurrency),
        **{name: value for name, value in given.items() if value is not None},
        speedup=speedup, burstiness=burstiness, open_loop=open_loop, retries=retries, leave=leave,
        skip_bad_rows=skip_bad_rows, keep_ticks=keep_ticks, seed=seed,
    )  # fmt: skip
    ladder = contest.steps(load, factors, step_duration or (contest.DEMO_STEP_S if simulated else None))
    rest = {
        "salt": salt,
        "tokenizer": tokenizer,
        "vocabulary": token_ids,
        "slo": tuple(slo or ()),
        "goodput": tuple(goodput or ()),
    }
    record = {"argv": targeting.argv(), "json": as_json, "report": report}

    if simulated:
        field = contest.sized(contest.THREE, load)
        folder = planning.new_folder("bakeoff", out)
        specs = endpoints.start(field, model or contest.MODEL, folder / "endpoints")
        record |= {"embedded": contest.embedded(field, model or contest.MODEL), "closing": contest.DEMONSTRATION}
    else:
        common = {
            "model": model, "endpoint_type": endpoint_type, "api_key_env": api_key_env, "api_key_file": api_key_file,
            "header": header or [], "insecure": insecure, "ca_file": ca_file, "ignore_eos": ignore_eos,
            "extra_body": extra_body,
        }  # fmt: skip
        specs = targeting.settled(targeting.several(target or [], targets, common), wait_ready)
    plan, traces = contest.plan("bakeoff", ladder, specs, order, record=record, **rest)
    targeting.check_workers(plan, workers.count)
    targeting.check_open_files(plan, workers.count)
    if not simulated:
        targeting.check(specs)
        targeting.wait_ready(specs, wait_ready)
        if probe:
            targeting.probe(specs)
        folder = planning.new_folder("bakeoff", out)
    plans.save(plan, traces, folder)
    become.run(folder, workers, ctx.args)
