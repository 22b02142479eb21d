"""`phaseload compare`: the same requests on two endpoints, or in two runs, pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o


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

    import reports
    from reports.render import text
    from traces.errors import InputError

    runs = [reports.open_run(folder) for folder in (run, other) if folder is not None]
    for recorded in runs:
        if recorded.damaged or recorded.lacking:
            warning = f"{recorded.folder}: row files are gone or unreadable; only the rows that are left are compared"
            Console(stderr=True).print(warning, soft_wrap=True, markup=False, highlight=False)
    comparisons = reports.compare(runs[0], *runs[1:], base=base)
    if not comparisons:
        raise InputError("one target only: nothing to compare", where=str(run), remedy="give a second run")
    if json:
        o.print_json(comparisons)
    else:
        text.print_comparison(comparisons, Console())
