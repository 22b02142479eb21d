"""Does a recorded run meet its SLOs? `phaseload gate`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import reports
from traces.errors import InputError

from . import options as o

if TYPE_CHECKING:
    from reports.analysis.judgement import Judgement

SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that GitHub shows on a job's page
FILES = "Files and CI"


def gate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    slo: Annotated[
        list[str] | None, typer.Option(metavar="GATE", help='"ttft p99 < 800ms"; repeatable. The run\'s own else.')
    ] = None,
    slo_file: Annotated[
        Path | None, typer.Option(help="A slo.toml: named gates, slices, objectives, a baseline (docs/gates.md).")
    ] = None,
    goodput: Annotated[
        list[str] | None, typer.Option(metavar="METRIC:TIME", help="ttft:800ms tpot:40ms, for gates on goodput.")
    ] = None,
    junit: Annotated[Path | None, o.option(FILES, "Also write the verdicts as JUnit XML to this file.")] = None,
    markdown: Annotated[
        Path | None, o.option(FILES, "Also write them as Markdown, for a pull request's comment.")
    ] = None,
    github: Annotated[
        bool, o.option(FILES, "Also print annotations of GitHub Actions, and fill the job's summary.", "--github")
    ] = False,
    json: Annotated[bool, o.option(FILES, "Print validity and verdicts as JSON and nothing else.", "--json")] = False,
) -> None:
    """Ask a recorded run whether it meets its SLOs. Exit code 0: every gate passed; 1: one failed; 2: not a gate;
    3: can't be decided, because the run is invalid or its sample too small.

    A gate is [TARGET][@STEP]: METRIC [pNN | mean | max] < NUMBER UNIT [where CONDITION [and CONDITION]...]. Metrics:
    ttft, ttft_from_due, tpot, itl, e2e, longest_stall, lateness, connect (us, ms, s; bare: ms), errors (%), goodput
    (/s, %), requests and tokens (/s). A condition slices requests by prompt_tokens, output_tokens, in_flight, session
    or turn.

    Examples:

        phaseload gate runs/azure-conv-1 --slo "ttft p99 < 800ms" --slo "tpot p99 < 40ms" --slo "errors < 1%"

        phaseload gate runs/azure-conv-1 --slo "ttft p99 < 2s where prompt_tokens > 4096"

        phaseload gate runs/azure-conv-1 --goodput ttft:800 tpot:40 --slo "goodput > 95%"

        phaseload gate runs/bakeoff-1 --slo "groqrack@base: tpot p50 < 6ms"

        phaseload gate runs/new --slo-file slo.toml --junit out.xml --markdown out.md
    """
    judgement = _judged(run, slo or [], [*(goodput or []), *context.args], slo_file)
    from rich.console import Console

    from reports.render import github as actions
    from reports.render import text
    from reports.render.junit import junit as junit_of
    from reports.render.markdown import markdown as markdown_of

    if junit is not None:
        _write(junit, junit_of(judgement))
    if markdown is not None:
        _write(markdown, markdown_of(judgement).encode())
    if json:
        o.print_json(judgement.as_json())
    else:
        with actions.shielded() if github else nullcontext():
            console = Console()
            console.print(text.validity_line(judgement.validity), soft_wrap=True)
            text.print_verdicts(judgement.verdicts, judgement.validity, console, judgement.regressions)
    if github:
        for line in actions.commands(judgement):
            typer.echo(line, err=json)
        if path := os.environ.get(SUMMARY):
            _append(Path(path), markdown_of(judgement))
    raise typer.Exit(judgement.exit_code)


def _judged(run: Path, slo: list[str], goodput: list[str], slo_file: Path | None) -> Judgement:
    """What is asked is read before the run is: a mistake costs no time."""
    from reports.analysis import slo_toml
    from reports.analysis.gate_grammar import parse, parse_goodput
    from reports.analysis.judgement import Judgement
    from reports.analysis.summary import own_gates
    from reports.render.findings import command
    from targets import secrets

    file = slo_toml.load(slo_file) if slo_file is not None else slo_toml.Slo()
    if file.max_regress:
        raise InputError("baselines aren't compared yet", where=str(slo_file), remedy="leave [baseline] out")
    gates = [parse(text) for text in (*slo, *file.gates)]
    objectives = parse_goodput(goodput or file.goodput)
    recorded = reports.open_run(run)
    gates = gates or own_gates(recorded)
    if not gates:
        raise InputError("no gate to ask", where=str(run), remedy='add --slo "ttft p99 < 800ms"')
    summary = reports.summarise(recorded, objectives or None)
    verdicts = reports.judge(summary, gates)
    return Judgement(recorded, summary, verdicts, command=command(secrets.argv()))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as problem:
        raise InputError(f"can't be written: {problem.strerror}", where=str(path)) from None


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise InputError(f"can't be written: {problem.strerror}", where=f"{path}, of {SUMMARY}") from None
