"""`phaseload replay`: one trace against one endpoint."""

from __future__ import annotations

import typer

from ..load import Answers, Endpoint, Gates, Load
from ..run.spawn import Workers
from . import options as o


@o.taking(endpoint=Endpoint, load=Load, answers=Answers, gates=Gates, workers=Workers)
def replay(
    ctx: typer.Context,
    *,
    url: o.Url = None,
    endpoint: Endpoint,
    wait_ready: o.WaitReady = None,
    probe: o.Probe = True,
    load: Load,
    salt: o.Salt = "auto",
    answers: Answers,
    gates: Gates,
    out: o.Out = None,
    report: o.Report = True,
    as_json: o.Json = False,
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
    from .. import plan as plans
    from .. import planner, preflight, secrets
    from ..run import spawn
    from . import target_options

    if workers.worker:
        spawn.run(None, workers, ctx.args)
    spec = target_options.spec(target_options.short_name(url, endpoint.model), url, endpoint, answers)
    preflight.check_prompts(answers, endpoint.endpoint_type)
    preflight.check_gates(gates)
    [spec] = preflight.settled([spec], wait_ready)
    record = {"argv": secrets.argv(), "order": "parallel", "json": as_json, "report": report}
    plan, traces = planner.replay(
        planner.name_of(load.trace), load, spec, record=record, **planner.common(salt, answers, gates)
    )
    preflight.check(plan, workers.count, [spec], wait_ready, probe)
    folder = planner.new_folder(plan.name, out)
    plans.save(plan, traces, folder)
    spawn.run(folder, workers, ctx.args)
