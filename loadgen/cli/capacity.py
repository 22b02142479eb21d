"""`phaseload capacity`: the highest rate that an endpoint takes within its objectives."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..load import Endpoint, Gates, Load
from ..run.spawn import Workers
from . import options as o

Lowest = Annotated[float, typer.Option("--from", help="Rate of the first step, requests/s.", rich_help_panel=o.LOAD)]
Highest = Annotated[float, typer.Option("--to", help="Rate that is never exceeded.", rich_help_panel=o.LOAD)]
Precision = Annotated[float, typer.Option(help="How close the answer must be: 0.1 is 10 %.", rich_help_panel=o.LOAD)]
StepDuration = Annotated[
    float, typer.Option("--duration", help="Seconds of a step; longer where p99 needs it.", rich_help_panel=o.LOAD)
]
Warmup = Annotated[float, o.OPTIONS["warmup"]]


@o.taking(
    endpoint=Endpoint, load=Load, gates=Gates, workers=Workers,
    omit=("speedup", "request_rate", "concurrency", "request_count", "web_port", *o.REMOTE),
)  # fmt: skip
def capacity(
    ctx: typer.Context,
    *,
    url: o.Url = None,
    endpoint: Endpoint,
    lowest: Lowest = 1.0,
    highest: Highest = 1000.0,
    precision: Precision = 0.1,
    duration: StepDuration = 30.0,
    warmup: Warmup = 5.0,
    load: Load,
    gates: Gates,
    out: o.Out = None,
    workers: Workers,
) -> None:
    """Find the highest request rate at which every gate holds.

    Each step is a replay of its own, in a folder of its own. The rate doubles until a gate fails, then the interval is
    halved. What follows `--` goes to `phaseload replay` as it is.

    Examples:

        phaseload capacity azure-conv --url http://127.0.0.1:8000 -m m --slo "ttft p99 < 800ms" --slo "errors < 1%"

        phaseload capacity azure-code --url http://gpu:8000 -m m --from 4 --to 64 --slo "tpot p99 < 40ms" -- --no-probe
    """
    import subprocess

    from rich.console import Console

    from reports.analysis.gates import parse
    from reports.analysis.quantiles import needed
    from traces.errors import InputError

    from .. import capacity_search as finding
    from .. import planner, preflight
    from . import target_options

    target_options.required(" ".join(gates.slo), "--slo", 'for example --slo "ttft p99 < 800ms"')
    preflight.check_gates(gates)
    if not 0 < lowest <= highest or not precision > 0:
        raise InputError("expected 0 < --from <= --to, and a --precision above 0", where="capacity")
    target_options.required(load.trace, "TRACE", "a file, or a bundled workload such as azure-conv")
    folder = planner.new_folder("capacity", out)
    quantiles = [q for gate in gates.slo if (q := parse(gate).q) is not None]
    requests = max(map(needed, quantiles), default=1)
    console = Console()
    common = [*o.arguments(endpoint, load, gates, workers), f"--warmup={warmup}"]
    if url:
        common.append(f"--url={url}")

    def holds(rate: float) -> bool:
        step = folder / f"{rate:.3g}"
        command = [sys.executable, "-P", "-m", "loadgen", "replay", *common, *ctx.args, f"--out={step}"]
        command += [f"--request-rate={rate}", f"--duration={finding.seconds(rate, duration, requests)}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode not in (0, 1):
            sys.stdout.write(done.stdout)
            raise typer.Exit(done.returncode)
        console.print(f"{rate:8.3g}/s  {'holds' if done.returncode == 0 else 'fails'}   {step}", highlight=False)
        return done.returncode == 0

    found = finding.search(holds, lowest, highest, precision)
    beyond = "the highest rate asked for" if found.fails is None else f"at {found.fails:.3g}/s a gate fails"
    answer = f"capacity: {found.holds:.3g} requests/s ({beyond})" if found.holds else f"no rate holds: {beyond}"
    console.print(answer, highlight=False)
    raise typer.Exit(0 if found.holds else 1)
