"""The capacity search on known limits, and once on a real endpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadgen.capacities import search, seconds
from tests import commands

from .running import endpoint


@pytest.mark.parametrize("limit", [0.2, 1.0, 3.7, 10.0, 63.0])
def test_the_limit_is_bracketed(limit: float) -> None:
    asked: list[float] = []

    def holds(rate: float) -> bool:
        asked.append(rate)
        return rate <= limit

    rate, fails = search(holds, 1.0, 1000.0, 0.1)
    assert fails is not None
    assert rate <= limit < fails
    assert fails <= rate * 1.1
    assert len(asked) == len(set(asked)) <= 12


def test_the_ends_of_the_range() -> None:
    assert search(lambda rate: True, 1.0, 5.0) == (5.0, None)
    assert search(lambda rate: False, 1.0, 5.0) == (0, pytest.approx(1 / 32))


def test_a_step_has_enough_requests() -> None:
    assert seconds(100.0, 30.0, 299) == 30.0
    assert seconds(1.0, 30.0, 299) == pytest.approx(358.8)


def test_an_endpoint_that_serves_one_at_a_time(tmp_path: Path) -> None:
    """20 requests/s at most: a queue grows above, and the median TTFT with it. Both sides of the limit are far off."""
    with endpoint(tokens=1, ttft=0.05, alone=True) as server:
        done = commands.phaseload(
            "capacity", "azure-conv", "--url", server.url, "--from", "14", "--to", "28", "--precision", "1",
            "--duration", "2", "--warmup", "0", "--slo", "ttft p50 < 250ms", "--out", "c",
            "--", "--no-report", "--no-probe", "--drain-timeout", "1", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr
    if done.returncode == 0:  # 3: the machine was too busy for a valid step
        rate = float(re.search(r"capacity: (\S+) requests/s", done.stdout)[1])  # type: ignore[index]
        assert rate in (7, 14)
        assert {path.name for path in (tmp_path / "c").iterdir()} >= {"14", "28" if rate == 14 else "7"}
