"""`phaseload record`: one answer of a live server, as a table that is a test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import TargetOptions
from . import options as o


@o.taking(options=TargetOptions, omit=("ignore_eos",))
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
    import sys

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
    import os

    from traces.errors import InputError

    if not file.exists():
        if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise InputError(f"can't be written: {file.parent} is no folder to write to", where="--out")
        return ""
    try:
        with file.open("r+", encoding="utf-8") as file_so_far:
            return file_so_far.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be appended to: {error}", where="--out") from None
