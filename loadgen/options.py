"""The options that commands share, as types: name, help and group of each stand here once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TARGET, LOAD, ANSWERS, OUTCOME, LOCUST = "Target", "Load", "Answers", "Verdict and files", "Locust"

TraceFile = Annotated[
    str | None, typer.Argument(help="A file or folder of any known format, or a bundled workload such as azure-conv.")
]

Url = Annotated[str | None, typer.Option(help="Base URL of the endpoint.", rich_help_panel=TARGET)]
Model = Annotated[str, typer.Option("--model", "-m", help="Model name to ask for.", rich_help_panel=TARGET)]
EndpointType = Annotated[
    str,
    typer.Option(
        help="Wire format: chat, groq, dynamo, ..., a TOML file of your own, or auto.", rich_help_panel=TARGET
    ),
]
ApiKeyEnv = Annotated[
    str | None, typer.Option(help="Name of the environment variable that holds the API key.", rich_help_panel=TARGET)
]
ApiKeyFile = Annotated[str | None, typer.Option(help="File that holds the API key.", rich_help_panel=TARGET)]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header", "-H", help="KEY:VALUE, repeatable; ${VAR} comes from the environment.", rich_help_panel=TARGET
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Don't verify certificates.", rich_help_panel=TARGET)]
CaFile = Annotated[str | None, typer.Option(help="CA certificates to trust.", rich_help_panel=TARGET)]
WaitReady = Annotated[
    str | None,
    typer.Option(help="Wait so long for the endpoint to accept connections (90s, 10m).", rich_help_panel=TARGET),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe/--no-probe", help="Look at each endpoint with one request before the run.", rich_help_panel=TARGET
    ),
]

Speedup = Annotated[float, typer.Option(help="Time of the trace runs so many times as fast.", rich_help_panel=LOAD)]
RequestRate = Annotated[
    float | None,
    typer.Option(help="Requests per second, instead of the trace's instants (or inf).", rich_help_panel=LOAD),
]
Burstiness = Annotated[
    float, typer.Option(help="Shape of --request-rate's gaps: 1 Poisson, less is burstier.", rich_help_panel=LOAD)
]
Concurrency = Annotated[
    int | None, typer.Option(help="A fixed number of requests in flight, instead of instants.", rich_help_panel=LOAD)
]
Duration = Annotated[
    float | None, typer.Option(help="Seconds of counted arrivals; they follow the warm-up.", rich_help_panel=LOAD)
]
Warmup = Annotated[float, typer.Option(help="Seconds whose requests are sent, not counted.", rich_help_panel=LOAD)]
DrainTimeout = Annotated[
    float, typer.Option(help="Seconds that the last answers may take; then they are cut.", rich_help_panel=LOAD)
]
RequestCount = Annotated[
    int | None, typer.Option("--request-count", "-n", help="At most so many requests.", rich_help_panel=LOAD)
]
MaxContext = Annotated[
    int | None, typer.Option(help="Cut lengths to a model's context (tokens).", rich_help_panel=LOAD)
]
OpenLoop = Annotated[
    bool, typer.Option("--open-loop", help="Send later turns by their timestamps, too.", rich_help_panel=LOAD)
]
Retries = Annotated[
    int, typer.Option(help="Tries after a refused, limited or failed one; each is a row.", rich_help_panel=LOAD)
]
Leave = Annotated[float, typer.Option(help="Share of users who leave in mid-answer (0 to 1).", rich_help_panel=LOAD)]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Count unusable rows instead of refusing them.", rich_help_panel=LOAD)
]
KeepTicks = Annotated[
    bool, typer.Option("--keep-ticks", help="Leave a coarse clock's ticks as they are.", rich_help_panel=LOAD)
]
Seed = Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=LOAD)]
Salt = Annotated[
    str,
    typer.Option(help="Keeps prompts out of caches of earlier runs: auto, none, or a text.", rich_help_panel=LOAD),
]

Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="A tokenizer.json: prompts exact in its tokens, answers counted in them.", rich_help_panel=ANSWERS
    ),
]
TokenIds = Annotated[
    int | None,
    typer.Option(help="Send prompts as token ids below this (completions endpoints).", rich_help_panel=ANSWERS),
]
IgnoreEos = Annotated[
    bool | None,
    typer.Option(
        "--ignore-eos/--heed-eos", help="Ask for answers of exactly the trace's length.", rich_help_panel=ANSWERS
    ),
]
ExtraBody = Annotated[str | None, typer.Option(help="JSON object merged into each request.", rich_help_panel=ANSWERS)]

Slo = Annotated[list[str] | None, typer.Option(help='A gate, repeatable: "ttft p99 < 800ms".', rich_help_panel=OUTCOME)]
Goodput = Annotated[
    list[str] | None, typer.Option(help='Objectives in ms, repeatable: "ttft:800 tpot:40".', rich_help_panel=OUTCOME)
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the run (runs/NAME-TIME unless given).", rich_help_panel=OUTCOME)
]
Report = Annotated[
    bool,
    typer.Option(
        "--report/--no-report", help="Write report.html (or later: phaseload report).", rich_help_panel=OUTCOME
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.", rich_help_panel=OUTCOME)]

Processes = Annotated[int | None, typer.Option(help="Worker processes on this machine.", rich_help_panel=LOCUST)]
Master = Annotated[bool, typer.Option("--master", help="Lead workers of other machines.", rich_help_panel=LOCUST)]
ExpectWorkers = Annotated[int, typer.Option(help="Workers that a master waits for.", rich_help_panel=LOCUST)]
MasterBindHost = Annotated[str, typer.Option(help="Address at which a master listens.", rich_help_panel=LOCUST)]
MasterBindPort = Annotated[int, typer.Option(help="Port at which a master listens.", rich_help_panel=LOCUST)]
Worker = Annotated[bool, typer.Option("--worker", help="Work for a master; it has the plan.", rich_help_panel=LOCUST)]
MasterHost = Annotated[str, typer.Option(help="The worker's master.", rich_help_panel=LOCUST)]
MasterPort = Annotated[int, typer.Option(help="Its port.", rich_help_panel=LOCUST)]
WebPort = Annotated[
    int | None, typer.Option(help="Wait to be started from Locust's web page at this port.", rich_help_panel=LOCUST)
]
