"""What a recorded run meant: `phaseload report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import reports
from traces.errors import InputError

from . import options as o


def report(
    run: Annotated[list[Path], typer.Argument(help="Run folders; several are compared in one report.")],
    out: Annotated[Path | None, typer.Option(help="The page's path; report.html in the first run else.")] = None,
    goodput: Annotated[str | None, typer.Option(help="ttft:800ms,tpot:40ms: other objectives than the run's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write every request's figures as CSV to this path.")] = None,
) -> None:
    """Rebuild summary.json and report.html from a run's files alone, and print the verdict table; of a capacity search
    its answer and its curve.

    Examples:

        phaseload report runs/azure-conv-1

        phaseload report runs/before runs/after --out compare.html

        phaseload report runs/azure-conv-1 --json | jq '.results[].vllm.p99_ttft_ms'

        phaseload report runs/azure-conv-1 --csv requests.csv
    """
    from rich.console import Console

    from reports.analysis.gate_grammar import parse_goodput
    from reports.analysis.summary import save
    from reports.render import html, text
    from reports.store import capacity_json

    if len(run) == 1 and (run[0] / capacity_json.FILE).exists():
        _capacity(run[0], json=json)
        return
    objectives = parse_goodput([goodput]) if goodput else None
    runs = [reports.open_run(folder) for folder in run]
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


def _capacity(folder: Path, *, json: bool) -> None:
    """The page of a capacity search."""
    from rich.console import Console

    from reports.render import capacity_page, text

    found = capacity_page.reported(folder)
    if json:
        o.print_json(found.as_json())
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(text.printable(found.sentence), markup=False)
    console.print(f"report: {folder / 'report.html'}", markup=False)


def compare(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    other: Annotated[
        Path | None, typer.Argument(help="A later run of the same trace; without it: RUN's targets.")
    ] = None,
    base: Annotated[str, typer.Option(metavar="TARGET", help="Compare with this target of RUN only.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON and nothing else.")] = False,
) -> None:
    """Compare endpoints request by request: median ratios of TTFT, TPOT and E2E with 95 % intervals, and ratios of p99.

    Requests are paired by their place in the trace, so their lengths cancel. A ratio is OTHER / BASE.

    Examples:

        phaseload compare runs/bakeoff-1

        phaseload compare runs/bakeoff-1 --base h100

        phaseload compare runs/before runs/after --json
    """
    from rich.console import Console

    from reports.render import text

    runs = [reports.open_run(folder) for folder in (run, other) if folder is not None]
    for recorded in runs:
        if recorded.damaged or recorded.lacking:
            warning = f"{recorded.place}: row files are gone or unreadable; only the rows that are left are compared"
            Console(stderr=True).print(warning, soft_wrap=True, markup=False, highlight=False)
    comparisons = reports.compare(runs[0], *runs[1:], base=base)
    if not comparisons:
        raise InputError("one target only: nothing to compare", where=str(run), remedy="give a second run")
    if json:
        o.print_json(comparisons)
    else:
        text.print_comparison(comparisons, Console())
