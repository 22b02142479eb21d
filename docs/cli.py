"""docs/cli.md from the commands themselves: `python docs/cli.py > docs/cli.md`; a test holds them equal.

It reads the commands' signatures and not Typer's rendering of them, which depends on the terminal and on its version.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, cleandoc, signature
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any, get_args, get_origin

import typer
from typer.models import ArgumentInfo

from loadgen.cli.app import PASSING_ON, commands

WIDTH = 120
HEAD = """\
# Commands

Every command and its options: what `phaseload COMMAND --help` prints, made by `python docs/cli.py`.
"""
ARGUMENTS, OPTIONS = "Arguments", "Options"
KINDS = {str: "TEXT", int: "INTEGER", float: "FLOAT", Path: "PATH"}


def reference() -> str:
    """The whole document, as Markdown."""
    return "\n".join((HEAD, *_sections()))


def _sections() -> Iterator[str]:
    """A section for each command, in the order of the help."""
    for name, _, command in commands():
        if not isinstance(command, typer.Typer):
            yield from _section(f"phaseload {name}", command, "##", passes_on=name in PASSING_ON)
            continue
        yield f"## phaseload {name}\n\n{command.info.help}\n"
        for info in command.registered_commands:
            assert info.callback is not None
            yield from _section(f"phaseload {name} {info.callback.__name__}", info.callback, "###")


def _section(name: str, command: Callable[..., None], level: str, *, passes_on: bool = False) -> Iterator[str]:
    parameters = list(_described(signature(command, eval_str=True).parameters.values()))
    arguments = [text.split("`")[1] for panel, text in parameters if panel == ARGUMENTS]
    usage = " ".join((name, *arguments, "[OPTIONS]", *(["[ARGUMENTS...]"] if passes_on else [])))
    yield f"{level} {name}\n\n    {usage}\n\n{_text(command.__doc__ or '')}\n"
    panels = list(dict.fromkeys(panel for panel, _ in parameters))
    parameters.sort(key=lambda each: panels.index(each[0]))
    for panel, members in groupby(parameters, lambda each: each[0]):
        yield f"{panel}:\n\n" + "\n".join(text for _, text in members) + "\n"


def _text(text: str) -> str:
    """A help text: its paragraphs at the document's width, its examples as they are."""
    return "\n\n".join(
        paragraph if paragraph.startswith("    ") else _filled(" ".join(paragraph.split()))
        for paragraph in cleandoc(text).split("\n\n")
    )


def _described(parameters: Iterable[Parameter]) -> Iterator[tuple[str, str]]:
    """The panel of each argument and option, and its item in the panel's list."""
    for parameter in parameters:
        if not get_args(parameter.annotation):
            continue  # the context
        kind, info, *_ = get_args(parameter.annotation)
        scalar = _scalar(kind)
        if isinstance(info, ArgumentInfo):
            panel, names = ARGUMENTS, f"`{parameter.name.upper()}{'...' if get_origin(kind) is list else ''}`"
        else:
            panel, names = info.rich_help_panel or OPTIONS, _names(parameter, info, scalar)
        default = "" if info.show_default is False else _default(parameter.default, scalar)
        yield panel, _filled(f"- {names}: {info.help or ''}{f' Default: `{default}`.' if default else ''}", "  ")


def _scalar(kind: Any) -> Any:
    """The type of one value: of a list's items, of what may be None."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    return _scalar(inner[0]) if inner else kind


def _names(parameter: Parameter, info: Any, kind: Any) -> str:
    name = parameter.name.replace("_", "-")
    declared = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]  # as Typer does
    declared = declared or [f"--{name}/--no-{name}" if kind is bool else f"--{name}"]
    value = "" if kind is bool else f" {info.metavar or KINDS[kind]}"
    return ", ".join(f"`{each}{value}`" for names in declared for each in names.split("/"))


def _default(value: Any, kind: Any) -> str:
    return "" if kind is bool or value in (None, Parameter.empty, "", (), []) else str(value)


def _filled(text: str, indent: str = "") -> str:
    return fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(reference())
