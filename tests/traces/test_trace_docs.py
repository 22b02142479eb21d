"""docs/traces.md names every format, workload and command, and its examples work."""

import re
from pathlib import Path

import pytest

from loadgen.cli.trace import trace as commands
from traces.formats import tables
from traces.reading import open_trace
from traces.workload import WORKLOADS, synthesise

TEXT = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()


def examples() -> list[str]:
    blocks = re.findall(r"(?:^    .+\n?)+", TEXT, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


def formats() -> set[str]:
    """Names of all formats: those of the tables, and what the readers of other formats call their traces."""
    readers = "".join(path.read_text() for path in Path(tables.__file__).parent.glob("*.py"))
    named = re.findall(r'(?:rows\.trace\(\s*|\bname=)"([\w-]+)"', readers)
    return {table.name for table in tables.TABLES} - {"vidur-lengths"} | set(named)


def test_the_formats_are_found():
    assert formats() >= {"azure", "phaseload", "otel", "ragpulse", "servegen", "sharegpt", "weka"}


@pytest.mark.parametrize("name", sorted(formats()))
def test_every_format_has_a_row(name):
    assert re.search(rf"^\| ([\w-]+, )*{name}\b.*\|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_documented(name):
    assert f"`{name}`" in TEXT


def test_every_command_is_documented():
    for command in commands.registered_commands:
        assert f"`phaseload trace {command.callback.__name__} " in TEXT


def test_the_examples_work(tmp_path):
    table, workload = examples()
    (tmp_path / "t.csv").write_text(table)
    assert [r.due for r in open_trace(str(tmp_path / "t.csv"))] == [0, 4_314_579_000]
    (tmp_path / "w.json").write_text(workload)
    assert len(synthesise(str(tmp_path / "w.json"))) > 500
