"""Does a recorded run meet its SLOs? `phaseload gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import reports
from traces.errors import InputError

from . import options as o


def gate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    slo: Annotated[
        list[str] | None, typer.Option(metavar="GATE", help='"ttft p99 < 800ms"; repeatable. The run\'s own else.')
    ] = None,
    goodput: Annotated[
        list[str] | None, typer.Option(metavar="METRIC:TIME", help="ttft:800ms tpot:40ms, for gates on goodput.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print validity and verdicts as JSON and nothing else.")] = False,
) -> None:
    """Ask a recorded run whether it meets its SLOs. Exit code 0: every gate passed; 1: one failed; 2: not a gate;
    3: can't be decided, because the run is invalid or its sample too small.

    A gate is [TARGET][@STEP]: METRIC [pNN | mean | max] < NUMBER UNIT. Metrics: ttft, ttft_from_due, tpot, itl, e2e,
    longest_stall, lateness, connect (us, ms, s; bare: ms), errors (%), goodput (/s, %), requests and tokens (/s).

    Examples:

        phaseload gate runs/azure-conv-1 --slo "ttft p99 < 800ms" --slo "tpot p99 < 40ms" --slo "errors < 1%"

        phaseload gate runs/azure-conv-1 --goodput ttft:800 tpot:40 --slo "goodput > 95%"

        phaseload gate runs/bakeoff-1 --slo "groqrack@base: tpot p50 < 6ms"
    """
    from rich.console import Console

    from reports.analysis.gate_grammar import parse_goodput
    from reports.analysis.gates import exit_code
    from reports.analysis.summary import own_gates
    from reports.render import text

    recorded = reports.open_run(run)
    gates = slo or own_gates(recorded)
    if not gates:
        raise InputError("no gate to ask", where=str(run), remedy='add --slo "ttft p99 < 800ms"')
    objectives = [*(goodput or []), *context.args]
    summary = reports.summarise(recorded, parse_goodput(objectives) if objectives else None)
    verdicts = reports.judge(summary, gates)
    code = exit_code(verdicts, summary.validity.status)
    if json:
        o.print_json({"exit_code": code, "validity": summary.validity, "verdicts": [v.as_json() for v in verdicts]})
    else:
        console = Console()
        console.print(text.validity_line(summary.validity), soft_wrap=True)
        text.print_verdicts(verdicts, summary.validity, console)
    raise typer.Exit(code)
