"""`phaseload certify`: how much load can one process of this machine measure truly?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..certificate import CertifiedStep

MEANING = {
    "limit": "the client's core is full: this is where a process ends",
    "server": "the server of known instants could give no more here: a client's limit lies higher",
    "busy": "others had the machine: client or server waited for a core",
}


def certify(
    quick: Annotated[bool, typer.Option("--quick", help="Three steps only, about 15 s.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON and nothing else.")] = False,
) -> None:
    """Measure the client on this machine, in about a minute: loads stepped up against a server whose emission instants
    are known, the error of each, and the highest loads that one process measures safely. Later runs cite the
    certificate, and a run beyond it is suspect.

    Streams emit in steps, all together, as continuous batching makes them. Client and server take a core each: where
    two aren't idle a step fails because the machine was busy, and not at the client's limit. It is tried twice, and the
    table tells the two apart. Exit code 0: some load is safe; 1: none, or the machine was too busy to tell.

    Examples:

        phaseload certify

        phaseload certify --quick --json
    """
    import sys

    from rich.console import Console
    from rich.table import Table

    from .. import certificate

    console = Console(stderr=json, highlight=False, soft_wrap=True)
    with console.status("") as status:
        certified = certificate.certify(quick=quick, on_step=status.update)
    steps = certified.steps
    if not json:
        table = Table(*HEADINGS, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in table.columns[:-1]:
            column.justify = "right"
        for step in steps:
            table.add_row(*_cells(step))
        console.print("errors against the instants of the server's writes; CPU and cores of the client\n")
        console.print(table, soft_wrap=False)
        console.print()
    verdicts = [step.verdict for step in steps]
    for verdict in dict.fromkeys(verdicts):
        if verdict in MEANING:
            console.print(f"{verdict}: {MEANING[verdict]}")
    if verdicts[0] == certificate.BUSY:
        console.print(
            "the machine is too busy even for the first step: nothing is certified; try again when it is idle"
        )
        raise typer.Exit(1)
    if not certified.safe:
        console.print("no load was safe: nothing is certified")
        raise typer.Exit(1)
    if json:
        sys.stdout.write(certificate.path().read_text() + "\n")
        return
    safe_loads = certificate.in_words(certified.safe)
    console.print(f"one process measures truly {safe_loads}; --processes N for more")
    if verdicts[-1] == certificate.BUSY:
        console.print("an idle machine may be safe for more: that is where it was too busy to go on")
    console.print(f"certificate: {certificate.path()}")


HEADINGS = (
    "\nstreams", "\nchunks/s", "TTFT\np50 ms", "TTFT\np99 ms", "TPOT\np99 us", "us a\nchunk", "core\nused",
    "core\nlacked", "first\nshared", "",
)  # fmt: skip


def _cells(step: CertifiedStep) -> list[str]:
    ttft, tpot = step.ttft, step.tpot
    return [
        f"{step.streams:,}",
        f"{step.rate:,.0f}",
        _short(ttft[0] * 1e3),
        _short(ttft[1] * 1e3),
        _short(tpot[1] * 1e6),
        f"{step.cpu * 1e6:.1f}",
        f"{step.core:.0%}",
        f"{step.waited:.0%}",
        f"{step.shared:.1%}",
        step.verdict,
    ]


def _short(figure: float) -> str:
    return f"{figure:.3f}" if figure < 10 else f"{figure:,.0f}"
