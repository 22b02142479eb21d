"""`phaseload targets check`: one request to each target of a file, before a run is planned on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

targets = typer.Typer(help="Look at the targets of a targets.toml.", no_args_is_help=True)


@targets.callback()
def _several() -> None:
    """Look at the targets of a targets.toml."""


@targets.command()
def check(
    file: Annotated[Path, typer.Argument(help="A targets.toml.")],
    trace: Annotated[
        str | None, typer.Option(help="Compare each target's request and token limits with this trace.")
    ] = None,
    speedup: Annotated[float, typer.Option(help="As the replay will have it.")] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of the trace that will be replayed.")] = None,
) -> None:
    """Send one request to each target: is its URL right, its key, its model; does it stream and count tokens?

    Exit code 0: every target can be used, and admits the trace's worst minute; 1: at least one doesn't; 2: the file
    has a mistake, which is named with its line.

    Examples:

        phaseload targets check targets.toml

        phaseload targets check targets.toml --trace azure-conv --speedup 2 --duration 600
    """
    from rich.console import Console
    from rich.markup import escape

    from targets.targets_toml import load

    from .. import preflight
    from ..load import Load

    targets = load(file)
    requests = None if trace is None else Load(speedup=speedup, duration=duration).requests(trace)
    console, unusable = Console(highlight=False), 0
    for answer in preflight.look(targets, requests):
        target, ttft = answer.target, answer.exchange.ttft
        unusable += bool(answer.problems)
        verdict = "[red]no[/red] " if answer.problems else "[green]yes[/green]"
        first = "" if ttft is None else f"  TTFT {ttft * 1e3:,.0f} ms"
        place = f"{escape(target.url)} ({target.endpoint_type})"
        console.print(f"{verdict} [bold]{escape(target.name)}[/bold]  {place}{first}", soft_wrap=True)
        for line in (*answer.problems, *answer.notes):
            console.print(f"    {escape(line)}", soft_wrap=True)
    raise typer.Exit(1 if unusable else 0)
