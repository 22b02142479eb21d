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
    baseline: Annotated[Path | None, typer.Option(help="An earlier run that this one is compared with.")] = None,
    max_regress: Annotated[
        list[str] | None,
        typer.Option(metavar="REGRESSION", help='What may be worse than the baseline: "ttft p99 10%"; repeatable.'),
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

        phaseload gate runs/new --slo-file slo.toml --baseline runs/last --max-regress "ttft p50 10%" --junit out.xml
    """
    judgement = _judged(run, slo or [], [*(goodput or []), *context.args], slo_file, baseline, max_regress or [])
    from rich.console import Console

    from reports.render import findings, text
    from reports.render import github as actions
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
            for line in findings.rounds(judgement.summary):
                console.print(text.printable(line), soft_wrap=True, markup=False, highlight=False)
            if judgement.before is not None:
                validity = text.validity_line(judgement.before.validity, f"baseline {judgement.baseline}")
                console.print(validity, soft_wrap=True)
            text.print_verdicts(judgement.verdicts, judgement.validity, console, judgement.regressions)
    if github:
        for line in actions.commands(judgement):
            typer.echo(line, err=json)
        if path := os.environ.get(SUMMARY):
            _append(Path(path), markdown_of(judgement))
    raise typer.Exit(judgement.exit_code)


def _judged(
    run: Path, slo: list[str], goodput: list[str], slo_file: Path | None, baseline: Path | None, max_regress: list[str]
) -> Judgement:
    """What is asked is read before the run is: a mistake costs no time."""
    from reports.analysis import slo_toml
    from reports.analysis.baseline import regressions
    from reports.analysis.gate_grammar import parse, parse_allowance, parse_goodput
    from reports.analysis.gates import withheld
    from reports.analysis.judgement import Judgement
    from reports.analysis.summary import own_gates
    from reports.render.findings import command
    from targets import secrets

    file = slo_toml.load(slo_file) if slo_file is not None else slo_toml.Slo()
    gates = [parse(text) for text in (*slo, *file.gates)]
    allowances = [parse_allowance(text) for text in (*max_regress, *file.max_regress)]
    objectives = parse_goodput(goodput or file.goodput)
    baseline = baseline or file.baseline
    if baseline is None and allowances:
        raise InputError("needs a run to compare with", where="--max-regress", remedy="add --baseline runs/LAST")
    if baseline is not None and not allowances:
        remedy = 'add --max-regress "ttft p99 10%"'
        raise InputError("what may regress, and how far, is missing", where="--baseline", remedy=remedy)
    recorded = reports.open_run(run)
    gates = gates or own_gates(recorded)
    if not gates and not allowances:
        raise InputError("no gate to ask", where=str(run), remedy='add --slo "ttft p99 < 800ms"')
    summary = reports.summarise(recorded, objectives or None)
    asked = command(secrets.argv())
    if baseline is None:
        return Judgement(recorded, summary, reports.judge(summary, gates), command=asked)
    earlier = reports.open_run(baseline)
    before = reports.summarise(earlier, summary.objectives)
    against = regressions((earlier, recorded), (before, summary), allowances)
    for each in (summary, before):
        against = withheld(against, {result.target for result in summary.results}, each.validity.reasons)
    return Judgement(recorded, summary, reports.judge(summary, gates), against, before, asked)


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
