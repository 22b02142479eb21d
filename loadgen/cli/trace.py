"""`phaseload trace`: look at traces, reshape them, draw them from a workload, fit a workload to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import traces
from traces.errors import InputError

from . import options as o
from .options import print_json

trace = typer.Typer(no_args_is_help=True, help="Look at traces, reshape them, synthesise them, fit workloads to them.")

SHAPE = "Shape, in this order"
SOURCE = "A file or folder of any known format, - for stdin, or a bundled workload."
Source = Annotated[str, typer.Argument(help=SOURCE)]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Count unusable rows instead of refusing them.")]
KeepTicks = Annotated[bool, typer.Option("--keep-ticks", help="Leave coarse timestamps on their ticks.")]
Columns = Annotated[
    str | None, typer.Option(metavar="OURS=THEIRS,...", help="A table's own names: due_s=start,prompt_tokens=in.")
]
Seed = Annotated[int, typer.Option(help="Of every random draw.")]
Shape = typer.Option(rich_help_panel=SHAPE)


@trace.command()
def info(
    source: Source,
    until: Annotated[float | None, o.time("", "Read only so much of it.")] = None,
    skip_bad_rows: SkipBadRows = False,
    keep_ticks: KeepTicks = False,
    columns: Columns = None,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Say what a trace is like: rate, burstiness, lengths, sessions, and what a perfect prefix cache would hit.

    Examples:

        phaseload trace info AzureLLMInferenceTrace_conv.csv

        zcat trace.csv.gz | phaseload trace info - --json
    """
    from reports.render.trace_view import trace_text
    from traces.typed_json import to_plain

    as_given = {"skip_bad_rows": skip_bad_rows, "keep_ticks": keep_ticks}
    shown = traces.open_trace(source, columns=columns, seed=seed, until=until, **as_given)
    statistics = traces.describe(shown)
    if json:
        about = {"name": shown.name, "fingerprint": shown.fingerprint(), "notes": dict(shown.notes)}
        print_json(about | to_plain(statistics))
    else:
        typer.echo(trace_text(shown, statistics), nl=False)


@trace.command()
def convert(
    source: Annotated[list[str], typer.Argument(help="One trace, or several that are merged.")],
    out: Annotated[str, typer.Argument(help="File to write: .parquet, .jsonl or .csv, the latter two also .gz, .zst.")],
    start: Annotated[float, o.time(SHAPE, "Cut what comes before.")] = 0.0,
    end: Annotated[float | None, o.time(SHAPE, "Cut what comes after.")] = None,
    min_prompt: Annotated[int | None, Shape] = None,
    max_prompt: Annotated[int | None, Shape] = None,
    min_output: Annotated[int | None, Shape] = None,
    max_output: Annotated[int | None, Shape] = None,
    repeat: Annotated[int, Shape] = 1,
    rate_scale: Annotated[float, typer.Option(help="Thin (< 1) or superpose (> 1).", rich_help_panel=SHAPE)] = 1.0,
    speedup: Annotated[
        float, typer.Option("--speedup", "--speed", help="Time runs so many times as fast.", rich_help_panel=SHAPE)
    ] = 1.0,
    max_context: Annotated[int | None, typer.Option(help="Cut lengths to fit (tokens).", rich_help_panel=SHAPE)] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many requests.", rich_help_panel=SHAPE)] = None,
    skip_bad_rows: SkipBadRows = False,
    keep_ticks: KeepTicks = False,
    columns: Columns = None,
    seed: Seed = 0,
) -> None:
    """Read traces of any format, reshape them and write one of our own.

    Examples:

        phaseload trace convert mooncake.jsonl.gz mooncake.parquet

        phaseload trace convert conv.csv code.csv both.jsonl.zst --end 600 --rate-scale 2 --max-context 8192
    """
    as_given = {"skip_bad_rows": skip_bad_rows, "keep_ticks": keep_ticks}
    parts = [traces.open_trace(name, columns=columns, seed=seed, until=end, **as_given) for name in source]
    shaped = parts[0] if len(parts) == 1 else traces.merge(parts)
    if start or end is not None:
        shaped = traces.clip(shaped, start, end)
    shaped = traces.only(shaped, prompt=(min_prompt, max_prompt), output=(min_output, max_output))
    if repeat != 1:
        shaped = traces.repeat(shaped, repeat)
    if rate_scale != 1:
        shaped = traces.scale_rate(shaped, rate_scale, seed)
    if speedup != 1:
        shaped = traces.speedup(shaped, speedup)
    if max_context is not None:
        shaped = traces.cap_context(shaped, max_context)
    if limit is not None:
        shaped = traces.limit(shaped, limit)
    if not len(shaped):
        raise InputError("no request is left", where=", ".join(source), remedy="ask for a wider part")
    _write(shaped, out)


def _write(made: traces.Trace, out: str) -> None:
    traces.write(made, out)
    typer.echo(f"{out}: {len(made):,} requests in {made.span / 1e9:.3f} s, fingerprint {made.fingerprint()}")


@trace.command()
def plot(
    source: Source,
    out: Annotated[str, typer.Argument(help="Picture to write: .png, .svg or .html.")],
    skip_bad_rows: SkipBadRows = False,
    keep_ticks: KeepTicks = False,
    columns: Columns = None,
    seed: Seed = 0,
) -> None:
    """Draw a trace: arrivals, gaps against Poisson's, lengths, prompt against output.

    Examples:

        phaseload trace plot azure-code azure-code.html
    """
    from reports.render.trace_view import plot_trace

    as_given = {"skip_bad_rows": skip_bad_rows, "keep_ticks": keep_ticks}
    shown = traces.open_trace(source, columns=columns, seed=seed, **as_given)
    plot_trace(shown, traces.describe(shown), out)
    typer.echo(out)


@trace.command()
def synth(
    name: Annotated[str, typer.Argument(help="A bundled workload, or a workload file as fit writes it.")] = "",
    rate: Annotated[float | None, typer.Option(help="Requests a second, else the workload's own.")] = None,
    duration: Annotated[float | None, o.time("", "How long, else the workload's own.")] = None,
    seed: Seed = 0,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="File to write, else a description is printed.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the bundled workloads.")] = False,
) -> None:
    """Draw a trace from a workload's parameters.

    Examples:

        phaseload trace synth --list

        phaseload trace synth azure-conv --rate 20 --duration 600 --seed 1 -o conv20.parquet
    """
    from reports.render.trace_view import trace_text
    from traces.workload import WORKLOADS, load

    if list_ or not name:
        for workload in WORKLOADS:
            typer.echo(f"{workload:<24}{load(workload).about}")
        return
    made = traces.synthesise(name, rate=rate, duration=duration, seed=seed)
    if out is None:
        typer.echo(trace_text(made, traces.describe(made)), nl=False)
    else:
        _write(made, out)


@trace.command()
def fit(
    source: Source,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Workload file to write.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Synthetic traces to compare it with.")] = 3,
    skip_bad_rows: SkipBadRows = False,
    keep_ticks: KeepTicks = False,
    columns: Columns = None,
    seed: Seed = 0,
) -> None:
    """Fit a workload to a trace, parameters only, and say how well traces made from it resemble it.

    Examples:

        phaseload trace fit mine.csv -o mine.json && phaseload trace synth mine.json --rate 20
    """
    from rich.console import Console
    from rich.table import Table

    from traces.fitting import closeness
    from traces.typed_json import to_json

    as_given = {"skip_bad_rows": skip_bad_rows, "keep_ticks": keep_ticks}
    real = traces.open_trace(source, columns=columns, seed=seed, **as_given)
    workload = traces.fit(real)
    rows = closeness(real, workload, seeds)
    table = Table(title=f"Synthetic against {real.name}: KS distances, relative errors of the rest")
    for heading in ("", *(f"seed {number}" for number in range(seeds))):
        table.add_column(heading, justify="right" if heading else "left")
    for name in rows[0]:
        table.add_row(name, *(_figure(name, row[name]) for row in rows))
    Console().print(table)
    if out is not None:
        try:
            Path(out).write_bytes(to_json(workload))
        except OSError as error:
            raise InputError(f"can't be written: {error.strerror}", where=out, remedy="check the path") from None
        typer.echo(out)


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name.endswith("KS") else f"{value:+.1%}"
