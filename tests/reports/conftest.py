"""One made bake-off and its page for all tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import html
from tests.reports import made


@pytest.fixture(scope="session")
def bakeoff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three targets and two load steps; don't write to it."""
    return made.run(tmp_path_factory.mktemp("bakeoff") / "run", steps={"1x": 9.0, "3x": 27.0})


@pytest.fixture(scope="session")
def report(bakeoff: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report.html."""
    return html.write([bakeoff], tmp_path_factory.mktemp("report") / "report.html")
