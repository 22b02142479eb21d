"""docs/cli.md is what the commands say of themselves: the same text, whatever the terminal, and every option in it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import typer

from loadgen.cli.app import program

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
reference = runpy.run_path(str(DOCUMENT.with_suffix(".py")))["reference"]


def test_the_document_is_made_from_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert DOCUMENT.read_text() == reference(), "python docs/cli.py > docs/cli.md"


def test_every_option_is_in_it() -> None:
    text = reference()
    commands = dict(typer.main.get_command(program()).commands)  # type: ignore[attr-defined]
    for name in ("trace", "targets"):
        commands |= {f"{name} {sub}": command for sub, command in commands.pop(name).commands.items()}
    for name, command in commands.items():
        section = text[text.index(f"# phaseload {name}\n") :].partition("\n#")[0]
        for parameter in command.params:
            options = [*parameter.opts, *parameter.secondary_opts] if parameter.opts[0].startswith("-") else []
            for option in set(options) - {"--help", "-h"}:
                assert f"`{option}" in section, (name, option)


def test_its_lines_fit() -> None:
    assert max(map(len, reference().splitlines())) <= 120
