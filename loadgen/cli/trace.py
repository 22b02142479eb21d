"""`phaseload trace`: look at traces, reshape them, draw them from a workload, fit a workload to one."""

from __future__ import annotations

from dataclasses import dataclass
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
Shape = typer.Option(rich_help_panel=SHAPE)


@dataclass(frozen=True)
class Reading:
    """How a trace's file is read: see `traces.open_trace`."""

    skip_bad_rows: bool = False
    keep_ticks: bool = False
    columns: str | None = None
    seed: int = 0

    def trace(self, source: str, until: float | None = None) -> traces.Trace:
        return traces.open_trace(source, until=until, **vars(self))


@trace.command()
@o.taking()
def info(
    source: Source,
    until: Annotated[float | None, o.time("", "Read only so much of it.")] = None,
    *,
    reading: Reading,
    json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Say what a trace is like: rate, burstiness, lengths, sessions, and what a perfect prefix cache would hit.

    Examples:

        phaseload trace info AzureLLMInferenceTrace_conv.csv

        zcat trace.csv.gz | phaseload trace info - --json
    """
    from reports.render.trace_view import trace_text
    from traces.typed_json import to_plain

    shown = reading.trace(source, until)
    statistics = traces.describe(shown)
    if json:
        about = {"name": shown.name, "fingerprint": shown.fingerprint(), "notes": dict(shown.notes)}
        print_json(about | to_plain(statistics))
    else:
        typer.echo(trace_text(shown, statistics), nl=False)


@trace.command()
@o.taking()
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
    speedup: Annotated[float, o.option(SHAPE, "Time runs so many times as fast.", "--speedup", "--speed")] = 1.0,
    max_context: Annotated[int | None, typer.Option(help="Cut lengths to fit (tokens).", rich_help_panel=SHAPE)] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many requests.", rich_help_panel=SHAPE)] = None,
    *,
    reading: Reading,
) -> None:
    """Read traces of any format, reshape them and write one of our own.

    Examples:

        phaseload trace convert mooncake.jsonl.gz mooncake.parquet

        phaseload trace convert conv.csv code.csv both.jsonl.zst --end 600 --rate-scale 2 --max-context 8192
    """
    parts = [reading.trace(name, end) for name in source]
    shaped = parts[0] if len(parts) == 1 else traces.merge(parts)
    if start or end is not None:
        shaped = traces.clip(shaped, start, end)
    shaped = traces.only(shaped, prompt=(min_prompt, max_prompt), output=(min_output, max_output))
    if repeat != 1:
        shaped = traces.repeat(shaped, repeat)
    if rate_scale != 1:
        shaped = traces.scale_rate(shaped, rate_scale, reading.seed)
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
@o.taking()
def plot(
    source: Source,
    out: Annotated[str, typer.Argument(help="Picture to write: .png, .svg or .html.")],
    *,
    reading: Reading,
) -> None:
    """Draw a trace: arrivals, gaps against Poisson's, lengths, prompt against output.

    Examples:

        phaseload trace plot azure-code azure-code.html
    """
    from reports.render.trace_view import plot_trace

    shown = reading.trace(source)
    plot_trace(shown, traces.describe(shown), out)
    typer.echo(out)


@trace.command()
def synth(
    name: Annotated[str, typer.Argument(help="A bundled workload, or a workload file as fit writes it.")] = "",
    rate: Annotated[float | None, typer.Option(help="Requests a second, else the workload's own.")] = None,
    duration: Annotated[float | None, o.time("", "How long, else the workload's own.")] = None,
    seed: Annotated[int, o.OPTIONS["seed"]] = 0,
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
@o.taking()
def fit(
    source: Source,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Workload file to write.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Synthetic traces to compare it with.")] = 3,
    *,
    reading: Reading,
) -> None:
    """Fit a workload to a trace, parameters only, and say how well traces made from it resemble it.

    Examples:

        phaseload trace fit mine.csv -o mine.json && phaseload trace synth mine.json --rate 20
    """
    from rich.console import Console

    from reports.render.text import grid
    from traces.fitting import closeness
    from traces.typed_json import to_json

    real = reading.trace(source)
    workload = traces.fit(real)
    rows = closeness(real, workload, seeds)
    headings = [f"seed {number}" for number in range(seeds)]
    lines = ([name, *(_figure(name, row[name]) for row in rows)] for name in rows[0])
    title = f"Synthetic against {real.name}: KS distances, relative errors of the rest"
    Console().print(grid(("", *headings), lines, headings, title))
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
