"""`phaseload gate`: does a recorded run meet its SLOs? The answer is the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o


def gate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    slo: Annotated[
        list[str] | None, typer.Option(metavar="GATE", help='"ttft p99 < 800ms"; repeatable. The run\'s own else.')
    ] = None,
    goodput: Annotated[
        list[str] | None, typer.Option(metavar="METRIC:MS", help="ttft:800 tpot:40, for gates on goodput.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print validity and verdicts as JSON and nothing else.")] = False,
) -> None:
    """Ask a recorded run whether it meets its SLOs. Exit code 0: every gate passed; 1: one failed; 2: not a gate;
    3: can't be decided, because the run is invalid or its sample too small.

    A gate is [TARGET][@STEP]: METRIC [pNN | mean | max] < NUMBER UNIT. Metrics: ttft, ttft_from_due, tpot, itl, e2e,
    longest_stall, lateness, connect (us, ms, s), errors (%), goodput (/s, %), requests and tokens (/s).

    Examples:

        phaseload gate runs/azure-conv-1 --slo "ttft p99 < 800ms" --slo "tpot p99 < 40ms" --slo "errors < 1%"

        phaseload gate runs/azure-conv-1 --goodput ttft:800 tpot:40 --slo "goodput > 95%"

        phaseload gate runs/bakeoff-1 --slo "groqrack@1x: tpot p50 < 6ms"
    """
    from rich.console import Console

    from reports.analysis import gates
    from reports.analysis import summary as summaries
    from reports.render import text
    from reports.store import run_folder
    from traces.errors import InputError

    loaded = run_folder.open_run(run)
    asked = [gates.parse(one) for one in slo or loaded.facts.slo]
    if not asked:
        raise InputError("no gate to ask", where=str(run), remedy='add --slo "ttft p99 < 800ms"')
    given = [*(goodput or []), *context.args]
    objectives = gates.parse_goodput(given or list(loaded.facts.goodput))
    summary = summaries.of(loaded, objectives)
    judged = summary["validity"]
    verdicts = gates.judge(run_folder.samples(loaded, objectives), asked, judged["reasons"])
    code = gates.exit_code(verdicts, judged["status"])
    if json:
        told = [verdict.as_json() for verdict in verdicts]
        o.print_json({"exit_code": code, "validity": judged, "verdicts": told})
    else:
        console = Console()
        text.print_verdicts(verdicts, console)
        console.print(text.validity_line(judged), soft_wrap=True)
    raise typer.Exit(code)
