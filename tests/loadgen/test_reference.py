"""docs/cli.md is what the commands say of themselves: the same text, whatever the terminal, and every option in it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from loadgen.cli.app import program

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
reference = runpy.run_path(str(DOCUMENT.with_suffix(".py")))["reference"]


def test_the_document_is_made_from_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert DOCUMENT.read_text() == reference(), "python docs/cli.py > docs/cli.md"


def leaves() -> dict[str, Any]:
    """Every command by its words."""
    commands = dict(typer.main.get_command(program()).commands)  # type: ignore[attr-defined]
    for name in ("trace", "targets"):
        commands |= {f"{name} {sub}": command for sub, command in commands.pop(name).commands.items()}
    return commands


@pytest.mark.parametrize("name", leaves())
def test_the_help_prints_every_word_of_it(name: str) -> None:
    """Brackets are no markup."""
    help_ = CliRunner().invoke(program(), [*name.split(), "--help"], terminal_width=200).output
    shown = re.sub(r"[\s│]+", "", help_)
    assert re.sub(r"\s+", "", leaves()[name].callback.__doc__) in shown


def test_every_option_is_in_it() -> None:
    text = reference()
    for name, command in leaves().items():
        section = text[text.index(f"# phaseload {name}\n") :].partition("\n#")[0]
        for parameter in command.params:
            options = [*parameter.opts, *parameter.secondary_opts] if parameter.opts[0].startswith("-") else []
            for option in set(options) - {"--help", "-h"}:
                assert f"`{option}" in section, (name, option)


def test_its_lines_fit() -> None:
    assert max(map(len, reference().splitlines())) <= 120
