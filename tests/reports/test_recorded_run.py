"""A run that an earlier state of the program recorded (tests/data/run-2026-11) still opens, and means the same.

It is a bake-off of two simulated servers at two loads, of which one is overloaded and its last answers were cut. Its
row files were put together into one, the machine's name was replaced, and summary.json is what that program made of it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reports import judge, open_run, summarise
from reports.analysis.gates import exit_code
from reports.analysis.summary import save
from reports.render import html
from reports.store import row_files, run_json
from reports.store.digests import Digests
from targets import telemetry
from traces.errors import InputError

STORED = Path(__file__).parent.parent / "data" / "run-2026-11"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy, because a summary writes into the run's folder."""
    return Path(shutil.copytree(STORED, tmp_path / "run-2026-11"))


def test_its_facts_are_read_and_written_without_loss(tmp_path: Path) -> None:
    facts = run_json.read(STORED)
    assert (facts.ended, facts.order, [target.name for target in facts.targets]) == (
        "completed",
        "parallel",
        ["gpu", "lpu"],
    )
    assert [(step.name, step.unsent) for step in facts.steps] == [
        ("base", {"gpu": 0, "lpu": 0}),
        ("2x", {"gpu": 0, "lpu": 0}),
    ]
    run_json.write(tmp_path, facts)
    stored, written = (json.loads((folder / "run.json").read_text()) for folder in (STORED, tmp_path))
    assert dict(leaves(stored)).items() <= dict(leaves(written)).items(), "a later version may know more"


def test_its_summary_has_the_same_figures(folder: Path) -> None:
    before = json.loads((folder / "summary.json").read_text())
    save(open_run(folder))
    after = json.loads((folder / "summary.json").read_text())
    figures, expected = dict(leaves(after)), dict(leaves(before))
    judged = ("low", "high", "effective", "drifting", "more_s", "winner")  # how sure a figure is, is today's to say
    kept = {path: value for path, value in expected.items() if path.rpartition("/")[2] not in judged}
    assert figures.keys() >= expected.keys(), "a later version may know more"
    assert {path: (figures[path], value) for path, value in kept.items() if not same(figures[path], value)} == {}


def same(figure: Any, other: Any) -> bool:
    """But for the last bits; the error of a digest that is exact is nothing else."""
    numbers = isinstance(figure, float) and isinstance(other, float)
    return math.isclose(figure, other, rel_tol=1e-12, abs_tol=1e-14) if numbers else bool(figure == other)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each scalar with its path; where the run lies is not a figure."""
    if isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from leaves(inside, f"{path}/{name}")
    elif isinstance(value, list) and value:
        for index, inside in enumerate(value):
            yield from leaves(inside, f"{path}/{index}")
    elif path != "/run/folder":
        yield path, value


def test_it_is_judged_as_it_was(folder: Path) -> None:
    run = open_run(folder)
    assert len(run.exchanges()) == 114
    summary = summarise(run)
    verdicts = judge(summary, run.facts.slo)
    assert [(verdict.target, verdict.step, str(verdict.decision)) for verdict in verdicts] == [
        ("gpu", "base", "pass"), ("gpu", "2x", "pass"), ("lpu", "base", "no verdict"), ("lpu", "2x", "no verdict"),
        ("gpu", "base", "pass"), ("gpu", "2x", "pass"), ("lpu", "base", "pass"), ("lpu", "2x", "no verdict"),
    ]  # fmt: skip
    assert exit_code(verdicts, summary.validity.status) == 3


def test_its_page_is_drawn(folder: Path) -> None:
    run = open_run(folder)
    page = html.page([run], [summarise(run)]).read_text()
    assert "azure-conv" in page and "overloaded" in page and "load-generator" in page


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "digests.json", "exchanges/9-00000.parquet"])
def test_nothing_waits_for_the_writer_of_a_fifo_in_a_strangers_folder(folder: Path, file: str) -> None:
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    readers = {"metrics.jsonl": telemetry.read, "digests.json": Digests.load}
    with pytest.raises(InputError, match=rf"{file}: .*no regular file"):
        readers.get(file, lambda path: (run_json.read(folder), row_files.read(folder)))(folder / file)
