"""`phaseload replay`: one trace against one endpoint."""

from __future__ import annotations

from pathlib import Path

import typer

from .. import options as o


def replay(
    ctx: typer.Context,
    trace: o.TraceFile = None,
    url: o.Url = None,
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
    warmup: o.Warmup = 0.0,
    drain_timeout: o.DrainTimeout = 60.0,
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
    master: o.Master = False,
    expect_workers: o.ExpectWorkers = 1,
    master_bind_host: o.MasterBindHost = "127.0.0.1",
    master_bind_port: o.MasterBindPort = 5557,
    worker: o.Worker = False,
    master_host: o.MasterHost = "127.0.0.1",
    master_port: o.MasterPort = 5557,
    web_port: o.WebPort = None,
) -> None:
    """Replay a trace against an endpoint, and report TTFT and TPOT.

    What follows `--` goes to Locust as it is. Exit codes: 0 all gates hold, 1 one doesn't, 2 unusable input, 3 no
    verdict: the run was interrupted or is invalid. SIGINT, SIGTERM and SIGHUP end a run and report it.

    Examples:

        phaseload replay azure-conv --url http://127.0.0.1:8000 -m llama-3.1-8b --duration 60

        phaseload replay conv.csv --url http://gpu:8000 -m m --speedup 2 --slo "ttft p99 < 800ms"

        phaseload replay chats.jsonl --url https://api.groq.com --endpoint-type groq --api-key-env GROQ_API_KEY -m m
    """
    from .. import become, planning, targeting
    from .. import plan as plans

    workers = become.Workers(
        processes, master, expect_workers, master_bind_host, master_bind_port,
        worker, master_host, master_port, web_port,
    )  # fmt: skip
    if worker:
        become.run(None, workers, ctx.args)
    spec = targeting.spec(
        name=targeting.short_name(url, model), url=url, model=model, endpoint_type=endpoint_type,
        api_key_env=api_key_env, api_key_file=api_key_file, header=header or [], insecure=insecure, ca_file=ca_file,
        ignore_eos=ignore_eos, extra_body=extra_body,
    )  # fmt: skip
    targeting.check_prompts(tokenizer, token_ids, endpoint_type)
    targeting.check_gates(slo or [], goodput or [])
    [spec] = targeting.settled([spec], wait_ready)
    load = planning.Load(
        trace=targeting.required(trace, "TRACE", "a file, or a bundled workload such as azure-conv"),
        speedup=speedup, request_rate=request_rate, burstiness=burstiness, concurrency=concurrency, duration=duration,
        warmup=warmup, drain_timeout=drain_timeout, request_count=request_count, max_context=max_context,
        open_loop=open_loop, retries=retries, leave=leave, skip_bad_rows=skip_bad_rows, keep_ticks=keep_ticks,
        seed=seed,
    )  # fmt: skip
    plan, traces = planning.replay(
        planning.name_of(load.trace), load, spec, salt=salt, tokenizer=tokenizer, vocabulary=token_ids,
        slo=tuple(slo or ()), goodput=tuple(goodput or ()),
        record={"argv": targeting.argv(), "order": "parallel", "json": as_json, "report": report},
    )  # fmt: skip
    targeting.check_workers(plan, workers.count)
    targeting.check_open_files(plan, workers.count)
    targeting.check([spec])
    targeting.wait_ready([spec], wait_ready)
    if probe:
        targeting.probe([spec])
    folder: Path = planning.new_folder(plan.name, out)
    plans.save(plan, traces, folder)
    become.run(folder, workers, ctx.args)
