"""A look at live servers: `phaseload targets check` and `phaseload record`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from traces.errors import InputError

from ..load import Load
from ..options import TargetOptions
from . import options as o

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

    from targets.targets_toml import load_targets

    from .. import preflight

    targets = load_targets(file)
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


@o.taking(omit=("ignore_eos",))
def record(
    url: Annotated[str, typer.Argument(help="Base URL of the endpoint.")],
    *,
    options: TargetOptions,
    prompt: Annotated[str, typer.Option(help="What to ask.")] = "Count upwards from one, in words.",
    tokens: Annotated[int, typer.Option(help="Length of the answer.")] = 8,
    name: Annotated[str, typer.Option(help="The table's name; numbered where the file has it.")] = "stream",
    source: Annotated[str, typer.Option(help="Which server, which version: noted in the table.")] = "",
    out: Annotated[Path | None, typer.Option(help="Append the table to this file (stdout unless given).")] = None,
) -> None:
    """Record one answer, byte for byte, with the facts that our reader finds in it.

    The table goes into tests/wire/exchanges/TYPE.toml after a look at its facts: from then on the same bytes, whole or
    split anywhere, must give the same facts. Headers that aren't read are left out; the request isn't kept.

    Examples:

        phaseload record http://127.0.0.1:8000 -m llama-3.1-8b --source "vLLM 0.12"

        phaseload record https://api.groq.com --endpoint-type groq --api-key-env GROQ_API_KEY -m m --out groq.toml
    """

    from targets import recording

    from .. import preflight

    target = options.target(url, "record")
    if out is not None:
        name = recording.free_name(name, _text(out), str(out))
    [target] = preflight.settled([target], None)
    answer, exchange = recording.record(target, prompt, tokens, source)
    table = answer.table(name, recording.facts(exchange))
    if out is None:
        sys.stdout.write(table)
    else:
        with out.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + table)
        summary = f"{exchange.outcome}, {sum(exchange.token_events)} tokens in {len(exchange.token_events)} events"
        sys.stderr.write(f"{out}: [{name}] {summary} {exchange.error}\n")


def _text(file: Path) -> str:
    """What the file has so far. Raises InputError where no more can be written: before anything is sent."""

    if not file.exists():
        if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise InputError(f"can't be written: {file.parent} is no folder to write to", where="--out")
        return ""
    try:
        with file.open("r+", encoding="utf-8") as file_so_far:
            return file_so_far.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be appended to: {error}", where="--out") from None
