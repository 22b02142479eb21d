"""`phaseload replay`: one trace against one endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

TARGET, LOAD, OUTPUT, GATES, LOCUST = "Target", "Load", "Answers", "Verdict and files", "Locust"


def replay(
    ctx: typer.Context,
    trace: Annotated[
        str | None, typer.Argument(help="A file or folder in any known format, or a bundled workload (azure-conv).")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Base URL of the endpoint.", rich_help_panel=TARGET)] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model name.", rich_help_panel=TARGET)] = "",
    endpoint_type: Annotated[
        str, typer.Option(help="Wire format: chat, completions, groq, ...", rich_help_panel=TARGET)
    ] = "chat",
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the API key.", rich_help_panel=TARGET)
    ] = None,
    api_key_file: Annotated[str | None, typer.Option(help="File with the API key.", rich_help_panel=TARGET)] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="KEY:VALUE; may hold ${VAR}.", rich_help_panel=TARGET)
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Don't verify the certificate.", rich_help_panel=TARGET)] = False,
    ca_file: Annotated[str | None, typer.Option(help="CA certificates.", rich_help_panel=TARGET)] = None,
    wait_ready: Annotated[
        str | None, typer.Option(help="Wait for the endpoint that long (10m).", rich_help_panel=TARGET)
    ] = None,
    speedup: Annotated[float, typer.Option(help="Time runs so much faster.", rich_help_panel=LOAD)] = 1.0,
    request_rate: Annotated[
        float | None, typer.Option(help="Requests per second instead of the trace's (inf).", rich_help_panel=LOAD)
    ] = None,
    burstiness: Annotated[
        float, typer.Option(help="Of --request-rate: 1 Poisson, less is burstier.", rich_help_panel=LOAD)
    ] = 1.0,
    concurrency: Annotated[
        int | None, typer.Option(help="Requests in flight instead of instants.", rich_help_panel=LOAD)
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of counted arrivals, after the warm-up.", rich_help_panel=LOAD)
    ] = None,
    warmup: Annotated[float, typer.Option(help="Seconds sent but not counted.", rich_help_panel=LOAD)] = 0.0,
    drain_timeout: Annotated[float, typer.Option(help="Seconds for the last answers.", rich_help_panel=LOAD)] = 60.0,
    request_count: Annotated[
        int | None, typer.Option("--request-count", "-n", help="At most so many requests.", rich_help_panel=LOAD)
    ] = None,
    max_context: Annotated[
        int | None, typer.Option(help="Cap lengths to a model's context.", rich_help_panel=LOAD)
    ] = None,
    open_loop: Annotated[
        bool, typer.Option("--open-loop", help="Send sessions by their timestamps.", rich_help_panel=LOAD)
    ] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Count unusable rows.", rich_help_panel=LOAD)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=LOAD)] = 0,
    salt: Annotated[str, typer.Option(help="Of the prompts: auto, none, or a text.", rich_help_panel=LOAD)] = "auto",
    tokenizer: Annotated[str | None, typer.Option(help="A local tokenizer.json.", rich_help_panel=OUTPUT)] = None,
    ignore_eos: Annotated[
        bool | None, typer.Option(help="Answers of the trace's length.", rich_help_panel=OUTPUT)
    ] = None,
    extra_body: Annotated[
        str | None, typer.Option(help="JSON object added to each request.", rich_help_panel=OUTPUT)
    ] = None,
    slo: Annotated[list[str] | None, typer.Option(help='A gate: "ttft p99 < 800ms".', rich_help_panel=GATES)] = None,
    goodput: Annotated[list[str] | None, typer.Option(help="ttft:800 tpot:40 (ms).", rich_help_panel=GATES)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", rich_help_panel=GATES)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary on stdout.", rich_help_panel=GATES)] = False,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes of this machine.", rich_help_panel=LOCUST)
    ] = None,
    master: Annotated[bool, typer.Option("--master", help="Lead workers of others.", rich_help_panel=LOCUST)] = False,
    expect_workers: Annotated[int, typer.Option(help="How many.", rich_help_panel=LOCUST)] = 1,
    master_bind_host: Annotated[str, typer.Option(rich_help_panel=LOCUST)] = "127.0.0.1",
    master_bind_port: Annotated[int, typer.Option(rich_help_panel=LOCUST)] = 5557,
    worker: Annotated[bool, typer.Option("--worker", help="Work for a master.", rich_help_panel=LOCUST)] = False,
    master_host: Annotated[str, typer.Option(rich_help_panel=LOCUST)] = "127.0.0.1",
    master_port: Annotated[int, typer.Option(rich_help_panel=LOCUST)] = 5557,
    web_port: Annotated[
        int | None, typer.Option(help="Start from Locust's web page, there.", rich_help_panel=LOCUST)
    ] = None,
) -> None:
    """Replay a trace against an endpoint, and report TTFT and TPOT.

    What follows `--` goes to Locust as it is.

    Examples:

        phaseload replay azure-conv --url http://127.0.0.1:8000 -m llama-3.1-8b --duration 60

        phaseload replay conv.csv --url http://gpu:8000 -m m --speedup 2 --slo "ttft p99 < 800ms"

        phaseload replay sessions.jsonl --url https://api.groq.com --endpoint-type groq --api-key-env GROQ_API_KEY -m m
    """
    from .. import become, planning, targeting
    from .. import plan as plans

    workers = become.Workers(
        processes,
        master,
        expect_workers,
        master_bind_host,
        master_bind_port,
        worker,
        master_host,
        master_port,
        web_port,
    )
    if worker:
        become.run(None, workers, ctx.args)
    spec = targeting.spec(
        name="target", url=url, model=model, endpoint_type=endpoint_type, api_key_env=api_key_env,
        api_key_file=api_key_file, header=header or [], insecure=insecure, ca_file=ca_file, ignore_eos=ignore_eos,
        extra_body=extra_body,
    )  # fmt: skip
    targeting.check_gates(slo or [], goodput or [])
    load = planning.Load(
        trace=targeting.required(trace, "TRACE", "a file, or a bundled workload such as azure-conv"),
        speedup=speedup, request_rate=request_rate, burstiness=burstiness, concurrency=concurrency, duration=duration,
        warmup=warmup, drain_timeout=drain_timeout, request_count=request_count, max_context=max_context,
        open_loop=open_loop, skip_bad_rows=skip_bad_rows, seed=seed,
    )  # fmt: skip
    name = Path(load.trace).name.partition(".")[0]
    plan, traces = planning.replay(
        name, load, spec, salt=salt, tokenizer=tokenizer, slo=tuple(slo or ()), goodput=tuple(goodput or ()),
        record={"argv": sys.argv, "order": "parallel", "json": as_json},
    )  # fmt: skip
    targeting.check_workers(plan, workers.count)
    targeting.wait_ready([spec], wait_ready)
    folder = planning.new_folder(name, out)
    plans.save(plan, traces, folder)
    become.run(folder, workers, ctx.args)
