"""`phaseload report`: rebuild summary and report from a run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o


def report(
    run: Annotated[list[Path], typer.Argument(help="Run folders; several are compared in one report.")],
    out: Annotated[Path | None, typer.Option(help="The page's path; report.html in the first run else.")] = None,
    goodput: Annotated[str | None, typer.Option(help="ttft:800,tpot:40 (ms): other objectives than the run's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write every request's figures as CSV to this path.")] = None,
) -> None:
    """Rebuild summary.json and report.html from a run's files alone, and print the verdict table.

    Examples:

        phaseload report runs/azure-conv-1

        phaseload report runs/before runs/after --out compare.html

        phaseload report runs/azure-conv-1 --json | jq '.results[].vllm.p99_ttft_ms'

        phaseload report runs/azure-conv-1 --csv requests.csv
    """
    from rich.console import Console

    from reports import open_run
    from reports.analysis.gates import parse_goodput
    from reports.analysis.summary import save
    from reports.render import html, text

    objectives = parse_goodput([goodput]) if goodput else None
    runs = [open_run(folder) for folder in run]
    summaries = [save(recorded, objectives) for recorded in runs]
    page = html.page(runs, summaries, out)
    if csv is not None:
        text.write_csv(runs, csv)
    if json:
        o.print_json(summaries[0] if len(summaries) == 1 else summaries)
        return
    console = Console()
    for summary in summaries:
        text.print_summary(summary, console)
    console.print(f"report: {page}", soft_wrap=True, markup=False, highlight=False)
