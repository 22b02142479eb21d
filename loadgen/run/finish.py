"""The end of a run: summary, report and verdicts, from its files alone; and the exit code that says it all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from traces.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

OK, FAILED, UNUSABLE, INCOMPLETE = 0, 1, 2, 3


def conclude(folder: Path, console: Console | None = None) -> int:
    """Writes summary.json and report.html, prints them and the gates' verdicts, returns the exit code."""
    from rich.console import Console

    from reports.analysis.summary import save
    from reports.analysis.verdicts import exit_code, judge
    from reports.render import text
    from reports.store import run_folder, run_json

    facts = run_json.read(folder)
    console = console or Console(stderr=facts.json, soft_wrap=True)
    try:
        run = run_folder.open_run(folder)
        summary = save(run)
    except InputError as error:
        console.print(f"nothing to report: {error}", markup=False)
        return INCOMPLETE
    text.print_summary(summary, console)
    try:
        verdicts = judge(summary, facts.slo)
        text.print_verdicts(verdicts, console)
        code = exit_code(verdicts, summary.validity.status)
    except InputError as error:
        console.print(str(error), markup=False)
        code = UNUSABLE
    if facts.report:
        from reports.render import html  # its figures cost half a second

        console.print(f"report: {html.page([run], [summary])}", markup=False, highlight=False)
    if facts.closing:
        console.print(facts.closing, markup=False, highlight=False)
    if facts.json:
        sys.stdout.write((folder / "summary.json").read_text() + "\n")
    return INCOMPLETE if facts.ended in ("worker_lost", "interrupted") else code
