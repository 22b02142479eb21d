"""One made bake-off and its page for all tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.analysis.summary import Summary, summarise
from reports.store import run_folder
from reports.store.run_folder import Run
from tests.reports import made


@pytest.fixture(scope="session")
def bakeoff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three targets and two load steps; don't write to it."""
    return made.run(tmp_path_factory.mktemp("bakeoff") / "run", steps={"1x": 9.0, "3x": 27.0})


@pytest.fixture(scope="session")
def report(bakeoff: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report.html."""
    return made.page([bakeoff], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report.html of two rounds with gates, of which not all pass; summary.json is beside it."""
    return made.page([made.judged_rounds(tmp_path_factory.mktemp("rounds"))])


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose every text from outside is an attack, and its page."""
    folder = made.hostile(tmp_path_factory.mktemp("hostile"))
    made.page([folder])
    return folder


@pytest.fixture(scope="session")
def read_back(bakeoff: Path) -> Run:
    """It, read back."""
    return run_folder.open_run(bakeoff)


@pytest.fixture(scope="session")
def summed(read_back: Run) -> Summary:
    """Its summary with an objective; don't change it."""
    return summarise(read_back, {"ttft": 0.8})
