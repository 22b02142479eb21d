"""Servers: a look at live ones (`phaseload targets check`, `record`), and simulated ones (`simulate`, `serve`)."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from targets.simulated.profiles import ServerOptions
from traces.errors import InputError

from ..options import Load, RunOptions, TargetOptions
from . import options as o

SIMULATED = "Simulated endpoints"
AXIS = "An axis of a grid: speedup=0.5..8, pool=1,2,4, link.bandwidth=1..50:6 (points, 8 unless given)."

# Without a callback its only command would lose its name.
targets = typer.Typer(help="Look at the targets of a targets.toml.", no_args_is_help=True, callback=lambda: None)


@targets.command()
def check(
    file: Annotated[Path, typer.Argument(help="A targets.toml.")],
    trace: Annotated[
        str | None, typer.Option(help="Compare each target's request and token limits with this trace.")
    ] = None,
    speedup: Annotated[float, typer.Option(help="As the replay will have it.")] = 1.0,
    duration: Annotated[float | None, o.time("", "How much of the trace will be replayed.")] = None,
) -> None:
    """Send one request to each target: is its URL right, its key, its model; does it stream and count tokens?

    Exit code 0: every target can be used, and admits the trace's worst minute; 1: at least one doesn't; 2: the file
    has a mistake, which is named with its line.

    Examples:

        phaseload targets check targets.toml

        phaseload targets check targets.toml --trace azure-conv --speedup 2 --duration 600
    """
    from rich.console import Console
    from rich.markup import escape

    from targets.targets_toml import load_targets

    from .. import preflight

    targets = [target.sheltered() for target in load_targets(file)]
    requests = None if trace is None else Load(speedup=speedup, duration=duration).requests(trace)
    console, unusable = Console(highlight=False), 0
    for answer, problems in preflight.look(targets, requests):
        target, ttft = answer.target, answer.exchange.ttft
        unusable += bool(problems)
        verdict = "[red]no[/red] " if problems else "[green]yes[/green]"
        first = "" if ttft is None else f"  TTFT {ttft * 1e3:,.0f} ms"
        place = f"{escape(target.url)} ({target.endpoint_type})"
        console.print(f"{verdict} [bold]{escape(target.name)}[/bold]  {place}{first}", soft_wrap=True)
        for line in (*problems, *answer.notes):
            console.print(f"    {escape(line)}", soft_wrap=True)
    raise typer.Exit(1 if unusable else 0)


@o.taking(omit=("ignore_eos",))
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
    if not file.exists():
        if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise InputError(f"can't be written: {file.parent} is no folder to write to", where="--out")
        return ""
    try:
        with file.open("r+", encoding="utf-8") as file_so_far:
            return file_so_far.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be appended to: {error}", where="--out") from None


@o.taking(
    omit=(
        "concurrency", "drain_timeout", "open_loop", "retries", "leave", "keep_ticks", "prompts", "tokenizer",
        "token_ids", "salt", "wait_ready", "probe", "evidence", "report", "quota_scale",
    ),
)  # fmt: skip
def simulate(
    *,
    trace: o.Trace = "",
    target: Annotated[list[str] | None, o.option(SIMULATED, "[NAME=]PROFILE[,KEY=VALUE...], repeatable.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model whose sizes set the speed.")] = "llama2-7b",
    setting: Annotated[
        list[str] | None, o.option(SIMULATED, "A setting of all targets.", "--set", metavar="KEY=VALUE")
    ] = None,
    sweep: Annotated[list[str] | None, o.option(SIMULATED, AXIS, metavar="KEY=VALUES")] = None,
    rounds: o.Rounds = 1,
    round_duration: o.RoundDuration = None,
    load_factors: o.LoadFactors = None,
    load: Load,
    run: RunOptions,
) -> None:
    """Plan with simulated endpoints in virtual time: an hour of traffic in a second, the same report.

    With --sweep, every combination is simulated on all cores, and planning.html shows TTFT, TPOT and cost against the
    load, what a hybrid gains, and where batching overtakes. The gates of --slo judge each point; the exit code is 0
    if at least one point meets all of them, else 1 (3 if too few requests decide it).

    Examples:

        phaseload simulate azure-conv --target a100,pool=4 --target groqrack,pool=14 --duration 600

        phaseload simulate conv.csv --target h100 --slo "ttft p99 < 800ms" --goodput "ttft:800 tpot:40"

        phaseload simulate azure-conv --target h100,pool=2 --target groqrack,pool=7 --rounds 5 --load 0.5,1,2

        phaseload simulate azure-conv --duration 600 --target h100 --target h100-disagg --sweep speedup=0.5..8
    """
    from targets.simulated.build import SimulatedTarget
    from targets.simulated.profiles import pairs

    from .. import simulations

    shared = pairs(setting or [], "--set")
    targets = simulations.named([SimulatedTarget.parse(text, settings=shared) for text in target or []])
    if not sweep:
        from ..replays import conclude
        from ..rounds import Ladder, windowed

        load, ladder = windowed(load, round_duration), Ladder(load_factors or (1.0,))
        folder = simulations.record(trace, targets, load, run, model=model, ladder=ladder, rounds=rounds)
        sys.exit(conclude(folder))
    if rounds > 1 or load_factors:
        raise InputError("can't be combined with --rounds or --load", where="--sweep", remedy="--sweep speedup=0.5..2")
    from rich.console import Console

    from reports.render import planning_page

    from .. import sweeps

    axes = dict(sweeps.axis(text) for text in sweep)
    planning = sweeps.sweep(trace, targets, axes, load, model=model, slo=run.slo, goodput=run.goodput, out=run.out)
    console = Console(soft_wrap=True)
    planning_page.print_points(planning, console)
    console.print(f"report: {planning.folder / planning_page.FILE}", markup=False, highlight=False)
    sys.exit(sweeps.outcome_code(planning))


@o.taking()
def serve(
    name: Annotated[str, typer.Argument(help="Profile or composition (see --list), or the path of a TOML file.")] = "",
    port: Annotated[int, typer.Option(help="Port, 0 for any free one.")] = 8000,
    *,
    options: ServerOptions,
    list_: Annotated[bool, typer.Option("--list", help="Show profiles with their standing, models, settings.")] = False,
    figures: Annotated[bool, typer.Option(help="With NAME: show each figure with its standing and source.")] = False,
) -> None:
    """Serve a simulated endpoint: the OpenAI and Groq APIs at the speed of the named hardware.

    Examples:

        phaseload serve --list

        phaseload serve h100 --model llama3-8b

        phaseload serve groqrack --pool 7 --limit-tokens 100000

        phaseload serve a100-40g --set policy=prefill-first --set engine=trtllm

        phaseload serve disaggregated --pool 1:6 --set link.bandwidth=11.5

        phaseload serve h100 --fault stall=0.01,reset=0.01

        phaseload serve h100 --leg sglang:prefill
    """
    if list_ or figures:
        from targets.simulated.profiles import catalogue, load

        typer.echo(load(name).sheet() if figures else catalogue())
        return
    if not name:
        raise InputError("which endpoint?", remedy="phaseload serve NAME; `phaseload serve --list` shows them")
    from targets.simulated.__main__ import run

    run(replace(options, name=name, port=port))
