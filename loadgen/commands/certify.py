"""`phaseload certify`: how much load can one process of this machine measure truly?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer


def certify(
    quick: Annotated[bool, typer.Option("--quick", help="Three steps only, about 15 s.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON and nothing else.")] = False,
) -> None:
    """Measure the client on this machine, in about a minute: loads stepped up against a server whose emission instants
    are known, the error of each, and the highest load that one process measures safely. Later runs cite the
    certificate, and a run beyond it is suspect.

    Streams emit in steps, all together, as continuous batching makes them. Client and server take a core each: where
    two aren't idle, the figures are those of a busy machine. Exit code 0: some load is safe; 1: none.

    Examples:

        phaseload certify

        phaseload certify --quick --json
    """
    import datetime
    import json as as_json
    import sys

    from rich.console import Console
    from rich.table import Table

    from .. import certificate, selftest

    console = Console(stderr=json, highlight=False, soft_wrap=True)
    table = Table("streams", "chunks/s", "TTFT error p50", "p99", "TPOT error p99", "CPU a chunk", "shared", "")
    steps: list[dict[str, object]] = []
    late, unsafe = 0.0, 0
    for load in QUICK if quick else STEPS:
        with console.status(f"{load['streams']:,} streams x {load['rate']}/s"):
            figures = selftest.measure(load)
        safe = certificate.safe(figures)
        steps.append({**figures, "streams": load["streams"], "safe": safe})
        late = max(late, figures["late"][1])
        table.add_row(*_cells(load["streams"], figures), "safe" if safe else "not safe")
        unsafe = 0 if safe else unsafe + 1
        if unsafe == 2:  # more will not be better
            break
    if not json:
        console.print(table)
        console.print(
            f"the server of known instants was itself late by {late * 1e3:.1f} ms at most (p99); it logs when it wrote"
        )
    if not any(step["safe"] for step in steps):
        console.print("no load was safe: is the machine busy? Nothing is certified")
        raise typer.Exit(1)
    where = certificate.save(steps, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    if json:
        sys.stdout.write(where.read_text() + "\n")
        return
    allowed = as_json.loads(where.read_text())["safe"]
    console.print(
        f"one process measures {allowed['rate']:,.0f} chunks/s and {allowed['streams']:,} streams truly; "
        "--processes N for more"
    )
    console.print(f"certificate: {where}")


def _cells(streams: int, figures: Mapping[str, Any]) -> list[str]:
    ttft, tpot = figures["ttft"], figures["tpot"]
    return [
        f"{streams:,}",
        f"{figures['rate']:,.0f}",
        f"{ttft[0] * 1e3:.3f} ms",
        f"{ttft[1] * 1e3:.3f} ms",
        f"{tpot[1] * 1e6:.2f} us",
        f"{figures['cpu'] * 1e6:.1f} us",
        f"{figures['shared']:.1%}",
    ]


# Steps of about five seconds: streams, tokens a second and stream.
STEPS: list[dict[str, Any]] = [
    {"streams": streams, "rate": rate, "tokens": max(10, 3 * rate), "rounds": 1, "ramp_s": 0.5}
    for streams, rate in (
        (64, 100), (256, 50), (1000, 20), (1000, 40), (2000, 20), (1000, 60), (2000, 40), (4000, 20), (2000, 60),
    )
]  # fmt: skip
QUICK = [{**step, "tokens": step["rate"]} for step in (STEPS[0], STEPS[2], STEPS[3])]
