"""`phaseload bundle`: a run in one file that may be given away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bundle(
    run: Annotated[Path, typer.Argument(help="A run folder, or a folder of rounds.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; beside the folder else, as NAME.zip.")
    ] = None,
) -> None:
    """Put a run into one file without prompts, keys or host names. `phaseload report`, `gate` and `compare` take the
    file like the folder, on any machine, and rebuild every figure from it.

    What it holds, and what not: docs/contracts.md.

    Examples:

        phaseload bundle runs/bakeoff-1

        phaseload bundle runs/bakeoff-1 -o for-the-vendor.zip

        phaseload report for-the-vendor.zip
    """
    from reports.store.bundle import pack

    path = out or run.resolve().with_name(f"{run.resolve().name}.zip")
    pack(run, path)
    typer.echo(f"bundle: {path}")
