"""`phaseload bakeoff`: several targets under the same load."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traces.errors import INCOMPLETE, InputError, RunFailed

from ..options import Load, RunOptions, TargetOptions
from ..processes import Workers, become_locust
from . import options as o

if TYPE_CHECKING:
    from ..forecast import Forecast


@o.taking(omit=o.REMOTE)
def bakeoff(
    ctx: typer.Context,
    *,
    trace: o.Trace = "",
    target: Annotated[
        list[str] | None, o.option(o.TARGET, "NAME=URL, repeatable; instead of the simulated three.", "--target", "-t")
    ] = None,
    targets: Annotated[
        Path | None, o.option(o.TARGET, "A targets.toml with everything about them.", "--targets")
    ] = None,
    options: TargetOptions,
    rounds: o.Rounds = 1,
    round_duration: o.RoundDuration = None,
    load_factors: o.LoadFactors = None,
    order: Annotated[
        str | None, o.option(o.LOAD, "parallel, sequential (each target alone, as named), or random (alone, by turns).")
    ] = None,
    stop_early: Annotated[
        bool, o.option(o.LOAD, "End as soon as the rounds decide every gate.", "--stop-early")
    ] = False,
    quick: Annotated[bool, o.option(o.LOAD, "The first round only, to explore.", "--quick")] = False,
    steps: Annotated[
        Any, o.factors(o.LOAD, "Load steps that compress time, bursts and pauses too (1,2,4).", "--steps")
    ] = None,
    step_duration: Annotated[float | None, o.time(o.LOAD, "How long each step takes but the base (factor 1).")] = None,
    plan: o.Plan = False,
    yes: Annotated[bool, o.option(o.OUTCOME, "Begin several rounds without asking on a terminal.", "--yes")] = False,
    load: Load,
    run: RunOptions,
    workers: Workers,
) -> None:
    """Replay one trace against several endpoints, and compare them phase by phase.

    Each of the --rounds takes other requests: the next stretch of a recorded trace, another seed of a bundled workload.
    Over several rounds, intervals say how far figures move from round to round; one round explores, and names no winner
    of a tail. Targets run side by side where they share no host and this machine's certificate covers all of them at
    once, else each alone, in an order that is drawn anew for each round. A round in which a worker dies is lost, and
    named. Ctrl-C ends the series; what was finished is reported.

    Without --target it demonstrates itself on three simulated ones: an A100 pool, a GroqRack pool, and A100 prefill
    with GroqRack decode.

    Examples:

        phaseload bakeoff

        phaseload bakeoff azure-conv --targets targets.toml --rounds 5 --round-duration 10m --load 0.5,1,2

        phaseload bakeoff azure-conv --targets targets.toml --rounds 5 --load 0.5,1,2 --slo "ttft p99 < 800ms" --plan

        phaseload bakeoff conv.csv --target gpu=http://gpu:8000 --target groq=https://api.groq.com/openai -m m

        phaseload bakeoff azure-code --targets targets.toml --duration 120 --steps 1,2,4 --slo "gpu: ttft p99 < 1s"
    """
    from .. import bakeoffs, demonstration
    from ..rounds import DURATION, Ladder, windowed
    from . import forecast

    ladder, workload, folder = bakeoffs.ladder_of(load_factors, steps, step_duration), trace or bakeoffs.WORKLOAD, None
    if quick:
        rounds, round_duration = 1, round_duration or (DURATION if load.duration is None else None)
    closing = demonstration.ONE_ROUND if quick else ""
    if target or targets:
        load, chosen = windowed(load, round_duration), options.targets(target or [], targets)
        ready = bakeoffs.arrange(workload, chosen, load, ladder or Ladder(), rounds, order, workers.count)
        if plan:
            forecast.end(bakeoffs.foresee(ready, run, workers.count), run.json)
    else:
        given = o.given(ctx, Load)
        if round_duration is not None and not quick:
            given["duration"] = windowed(Load(duration=given.get("duration")), round_duration).duration
        base = demonstration.load_of(given, own_trace=bool(trace))
        model = options.model or demonstration.MODEL
        if plan:
            ready, _ = bakeoffs.rehearse(workload, base, ladder, rounds, order, workers.count, model=model)
            forecast.end(bakeoffs.foresee(ready, run, workers.count), run.json)
        folder, ready = bakeoffs.demonstrate(workload, base, ladder, rounds, order, run, workers.count, model=model)
        closing = demonstration.WORDS + (" " + demonstration.ONE_ROUND if rounds == 1 else "")
    if rounds == 1:
        become_locust(bakeoffs.prepare(ready, run, workers.count, folder=folder, closing=closing), workers, ctx.args)
    if workers.web_port is not None:
        raise InputError("can't be combined with --rounds", where="--web-port", remedy="the page starts one round")
    _end_by_signals()
    confirm = _nothing if yes or not (sys.stdin.isatty() and sys.stderr.isatty()) else _confirm
    try:
        folder = bakeoffs.record(
            ready, run, workers, ctx.args, folder=folder, closing=closing, stop_early=stop_early, confirm=confirm,
            show=_show, shown=True,
        )  # fmt: skip
    except RunFailed as failure:
        sys.stderr.write(f"phaseload: {failure}\n")
        raise typer.Exit(failure.code) from None
    from ..replays import conclude

    sys.exit(conclude(folder))


def _nothing(_: Forecast) -> None:
    pass


def _confirm(foreseen: Forecast) -> None:
    """Shows what the bake-off takes, and ends here unless it shall begin."""
    from rich.console import Console

    from . import forecast

    forecast.show(foreseen, Console(stderr=True))
    if not typer.confirm("Begin?", err=True):
        raise typer.Exit(INCOMPLETE)


def _show(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _end_by_signals() -> None:
    """SIGTERM and SIGHUP end the series as Ctrl-C does, unless they are ignored (nohup)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
