"""docs/traces.md names every format, workload and command, and its examples work."""

import re
from pathlib import Path

import pytest

from loadgen.cli.trace import trace as commands
from traces.formats.tables import TABLES
from traces.reading import open_trace
from traces.synthesis.workload import WORKLOADS, synthesise

TEXT = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()


def examples() -> list[str]:
    blocks = re.findall(r"(?:^    .+\n?)+", TEXT, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


@pytest.mark.parametrize("name", [*WORKLOADS, *(table.name for table in TABLES if table.name != "vidur-lengths")])
def test_every_format_and_workload_is_documented(name):
    assert re.search(rf"(`|\| ){name}\b", TEXT)


def test_every_command_is_documented():
    for command in commands.registered_commands:
        assert f"`phaseload trace {command.callback.__name__} " in TEXT


def test_the_examples_work(tmp_path):
    table, workload = examples()
    (tmp_path / "t.csv").write_text(table)
    assert [r.due for r in open_trace(str(tmp_path / "t.csv"))] == [0, 4_314_579_000]
    (tmp_path / "w.json").write_text(workload)
    assert len(synthesise(str(tmp_path / "w.json"))) > 500
