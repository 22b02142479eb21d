"""`phaseload replay`: one trace against one endpoint."""

from __future__ import annotations

import typer

from ..load import Load
from ..options import RunOptions, TargetOptions
from ..processes import Workers
from . import options as o


@o.taking(options=TargetOptions, load=Load, run=RunOptions, workers=Workers)
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
    from .. import processes, replays

    if workers.worker:
        processes.become_locust(None, workers, ctx.args)
    target = options.target(url)
    processes.become_locust(replays.prepare(trace, target, load, run, workers.count), workers, ctx.args)
