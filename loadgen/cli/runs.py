"""What sends to one target: `phaseload replay` and `capacity`, and `certify`, which measures the client itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Load, RunOptions, TargetOptions
from ..processes import Workers, become_locust
from . import options as o

if TYPE_CHECKING:
    from ..certificate import CertifiedStep


@o.taking(omit=("evidence",))
def replay(
    ctx: typer.Context, *, trace: o.Trace = "", url: o.Url = None, options: TargetOptions, load: Load,
    plan: o.Plan = False, run: RunOptions, workers: Workers,
) -> None:  # fmt: skip
    """Replay a trace against an endpoint, and report TTFT and TPOT.

    What follows `--` goes to Locust as it is. Exit codes: 0 all gates hold, 1 one doesn't or every request failed,
    2 unusable input, 3 no verdict: the run was interrupted or is invalid. SIGINT, SIGTERM and SIGHUP end a run and
    report it.

    Examples:

        phaseload replay azure-conv --url http://127.0.0.1:8000 -m llama-3.1-8b --duration 60

        phaseload replay conv.csv --url http://gpu:8000 -m m --speedup 2 --slo "ttft p99 < 800ms"

        phaseload replay chats.jsonl --url https://api.groq.com --endpoint-type groq --api-key-env GROQ_API_KEY -m m
    """
    from .. import replays

    if workers.worker:
        become_locust(None, workers, ctx.args, options.target("http://worker").sheltered().wants())
    if plan:
        from . import forecast

        forecast.end(replays.foresee(trace, options.target(url), load, run, workers.count), run.json)
    folder = replays.prepare(trace, options.target(url), load, run, workers.count)
    become_locust(folder, workers, ctx.args)


MEANING = {
    "limit": "the client's core is full: this is where a process ends",
    "server": "the server of known instants could give no more here: a client's limit lies higher",
    "busy": "others had the machine: client or server waited for a core",
}


def _short(figure: float) -> str:
    return f"{figure:.3f}" if figure < 10 else f"{figure:,.0f}"


# The columns of a certificate: heading -> cell.
CERTIFIED: dict[str, Callable[[CertifiedStep], str]] = {
    "\nstreams": lambda step: f"{step.streams:,}",
    "\nchunks/s": lambda step: f"{step.rate:,.0f}",
    "TTFT\np50 ms": lambda step: _short(step.ttft[0] * 1e3),
    "TTFT\np99 ms": lambda step: _short(step.ttft[1] * 1e3),
    "TPOT\np99 us": lambda step: _short(step.tpot[1] * 1e6),
    "us a\nchunk": lambda step: f"{step.cpu * 1e6:.1f}",
    "core\nused": lambda step: f"{step.core:.0%}",
    "core\nlacked": lambda step: f"{step.waited:.0%}",
    "first\nshared": lambda step: f"{step.shared:.1%}",
}


def certify(
    quick: Annotated[bool, typer.Option("--quick", help="Three steps only, about 15 s.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON and nothing else.")] = False,
) -> None:
    """Measure the client on this machine, in about a minute: loads stepped up against a server whose emission instants
    are known, the error of each, and the highest loads that one process measures safely. Later runs cite the
    certificate, and a run beyond it is suspect.

    Streams emit in steps, all together, as continuous batching makes them. Client and server take a core each: where
    two aren't idle a step fails because the machine was busy, and not at the client's limit. It is tried twice, and the
    table tells the two apart. Exit code 0: some load is safe; 1: none, or the machine was too busy to tell.

    Examples:

        phaseload certify

        phaseload certify --quick --json
    """
    from rich.console import Console
    from rich.table import Table

    from .. import certificate

    console = Console(stderr=json, highlight=False, soft_wrap=True)
    with console.status("") as status:
        certified = certificate.certify(quick=quick, on_step=status.update)
    steps = certified.steps
    if not json:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in CERTIFIED:
            table.add_column(heading, justify="right")
        table.add_column()
        for step in steps:
            table.add_row(*(figure(step) for figure in CERTIFIED.values()), step.verdict)
        console.print("errors against the instants of the server's writes; CPU and cores of the client\n")
        console.print(table, soft_wrap=False)
        console.print()
    verdicts = [step.verdict for step in steps]
    for verdict in dict.fromkeys(verdicts):
        if verdict in MEANING:
            console.print(f"{verdict}: {MEANING[verdict]}")
    if not certified.safe:
        busy = "the machine is too busy even for the first step: nothing is certified; try again when it is idle"
        console.print(busy if verdicts[0] == certificate.BUSY else "no load was safe: nothing is certified")
        raise typer.Exit(1)
    if json:
        sys.stdout.write(certificate.path().read_text() + "\n")
        return
    safe_loads = certificate.in_words(certified.safe)
    console.print(f"one process measures truly {safe_loads}; --processes N for more")
    if verdicts[-1] == certificate.BUSY:
        console.print("an idle machine may be safe for more: that is where it was too busy to go on")
    console.print(f"certificate: {certificate.path()}")
