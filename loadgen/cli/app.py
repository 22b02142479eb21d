"""The command line: `phaseload`, or `python -m loadgen`. The commands stand in the files beside this one: each parses
its options, calls the library and prints."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer

from traces.errors import INCOMPLETE, UNUSABLE, InputError

RUN, PLAN, REPORT, CHECK = "Replay", "Traces and simulation", "Results", "The tool itself"

# Name, module beside this one, and group in the help: a function or a Typer app of that name. The order of the help.
COMMANDS = (
    ("replay", "runs", RUN), ("bakeoff", "bakeoff", RUN), ("capacity", "capacity", RUN), ("targets", "servers", RUN),
    ("record", "servers", RUN),
    ("trace", "trace", PLAN), ("simulate", "servers", PLAN), ("serve", "servers", PLAN),
    ("report", "results", REPORT), ("gate", "gate", REPORT), ("compare", "results", REPORT),
    ("bundle", "bundle", REPORT),
    ("certify", "runs", CHECK),
)  # fmt: skip
ROOMS = ("loadgen", "reports", "targets", "traces")

# They pass on the arguments that they don't know: to Locust, to a replay, as more objectives.
PASSING_ON = ("replay", "bakeoff", "capacity", "gate")

app = typer.Typer(
    name="phaseload",
    help="Replays LLM traces against streaming inference endpoints: TTFT and TPOT, phase by phase, and a verdict.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked_for: bool) -> None:
    if asked_for:
        typer.echo(f"phaseload {version('phaseload')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def commands() -> Iterator[tuple[str, str, Any]]:
    """Name, group, and function (or Typer app) of each command."""
    for name, module, group in COMMANDS:
        yield name, group, getattr(import_module(f"loadgen.cli.{module}"), name)


def program() -> typer.Typer:
    if app.registered_commands:
        return app
    for name, group, command in commands():
        if isinstance(command, typer.Typer):
            for each in command.registered_commands:
                each.help = _help(each.callback)
            app.add_typer(command, name=name, rich_help_panel=group)
        else:
            more = {"allow_extra_args": name in PASSING_ON}
            app.command(name, help=_help(command), rich_help_panel=group, context_settings=more)(command)
    return app


def _help(command: Any) -> str:
    """A command's docstring as plain text: Rich would take `[TARGET]` for markup, and break lines where the source
    does."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", cleandoc(command.__doc__)).replace("[", r"\[")


def main() -> None:
    """Bad input is one line on stderr and exit code 2, wherever it was found."""
    try:
        check_rooms()
        program()()
    except InputError as error:
        sys.stderr.write(f"phaseload: {error}\n")
        sys.exit(UNUSABLE)
    except SystemExit as end:
        sys.exit(INCOMPLETE if end.code == 130 else end.code)  # Typer's for Ctrl-C
    except BrokenPipeError:  # `phaseload ... | head`
        sys.exit(0)
    except Exception as error:
        sys.stderr.write(_fault(error))
        sys.exit(INCOMPLETE)


def check_rooms() -> None:
    """The four packages must be ours: their names are ordinary words, and another distribution's `traces` or `reports`,
    installed later into the same environment, silently overwrites ours. InputError names the foreign one."""
    home = Path(__file__).resolve().parents[2]
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != home:
            remedy = f"expected it in {home}: install phaseload into an environment of its own"
            raise InputError(f"the package {room!r} is somebody else's", where=str(origin or room), remedy=remedy)


def _fault(error: Exception) -> str:
    if os.environ.get("PHASELOAD_DEBUG"):
        return "".join(traceback.format_exception(error))
    from targets.secrets import masked

    at = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"phaseload: a fault of its own, please report it: {masked(repr(error))} at {at.filename}:{at.lineno} "
        "(PHASELOAD_DEBUG=1 shows the way there)\n"
    )
