"""The end of a run: summary, report and verdicts, from its files alone; and the exit code that says it all."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

OK, FAILED, UNUSABLE, INCOMPLETE = 0, 1, 2, 3
INTERRUPTED = 130  # as a shell reports Ctrl-C


def _page(folder: Path) -> Path | None:
    try:
        from reports import html
    except ImportError:
        return None
    return html.write([folder], None)


def conclude(folder: Path) -> int:
    """Writes summary.json and report.html, prints them and the gates' verdicts, returns the exit code."""
    from rich.console import Console

    from reports import text
    from reports.gates import exit_code, judge, parse, parse_goodput
    from reports.summary import summarise
    from traces.errors import InputError

    about = orjson.loads((folder / "run.json").read_bytes())
    console = Console(stderr=bool(about.get("json")))
    try:
        summary = summarise(folder)
    except InputError as error:
        console.print(f"nothing to report: {error}")
        return INTERRUPTED if about["ended"] == "interrupted" else INCOMPLETE
    text.print_summary(summary, console)
    page = _page(folder)
    verdicts = judge(folder, [parse(gate) for gate in about["slo"]], parse_goodput(about["goodput"]))
    code = exit_code(verdicts, summary["validity"]["status"])
    console.print(f"report: {page}")
    if about.get("json"):
        sys.stdout.write((folder / "summary.json").read_text() + "\n")
    if about["ended"] == "interrupted" and not verdicts:
        return INTERRUPTED
    return INCOMPLETE if about["ended"] == "worker_lost" else code
