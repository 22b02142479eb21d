"""docs/simulated.md names every profile, setting and route, and its own example builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targets.simulated.analysis import capacity, pool
from targets.simulated.build import build
from targets.simulated.profiles import ALIASES, SETTINGS, names
from targets.simulated.server.server import APIS
from traces import transforms
from traces.workload import synthesise

PAGE = (Path(__file__).parents[2] / "docs" / "simulated.md").read_text()


def test_everything_is_named():
    for word in (*names(), *ALIASES, *SETTINGS, *APIS):
        assert f"`{word}" in PAGE or f"{word}`" in PAGE, word


def test_the_example_of_a_profile_builds(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert build(str(path)).price == 2.0


def test_the_table_of_pools_is_what_the_command_says():
    requests = list(transforms.cap_context(synthesise("azure-conv", duration=600.0, seed=0), 4096))
    rows = re.findall(r"^\| ([\w+-]+) \| ([\d. :]+) \| ([\d:]+) \| ([\d:]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for name, one, low, high in rows:
        found = capacity(name, requests)
        assert [float(part) for part in one.split(" : ")] == pytest.approx(list(found), rel=0.01)
        assert (pool(name, requests, 5.5), pool(name, requests, 17.5)) == (low, high)
