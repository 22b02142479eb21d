"""When a run became steady: on endpoints of known start, made of a few lines, and on a run in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import reports
from loadgen.bakeoffs import _invalid
from loadgen.options import Load, RunOptions
from loadgen.simulations import named, record
from reports.analysis import warmup
from reports.analysis.warmup import FEWEST, Start, start_of

S = 1e9
RATE, SECONDS = 8.0, 200  # requests/s, of the whole recording


def rows(seed: int, cold: Callable[[np.ndarray], np.ndarray] | None = None, rate: float = RATE) -> pd.DataFrame:
    """Poisson arrivals at an empty endpoint without a queue, where a request takes about 5 s and a token the longer the
    more requests are there: it is as good as full after 15 s. `cold`: seconds that TTFT takes longer, by arrival."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * SECONDS * 1.2)))
    due = due[due < SECONDS]
    took = rng.lognormal(1.3, 0.8, len(due))
    there = np.searchsorted(due, due) - np.searchsorted(np.sort(due + took), due)
    ttft = rng.lognormal(-3, 0.7, len(due)) + (cold(due) if cold else 0.0)
    tpot = 0.01 * (1 + there / 30) * rng.lognormal(0, 0.1, len(due))
    return pd.DataFrame({"due": due * S, "done": (due + took) * S, "ttft": ttft, "tpot": tpot, "ok": True})


def starts(begin: float, cold: Callable[[np.ndarray], np.ndarray] | None = None, seeds: int = 60) -> list[Start]:
    return [start_of(rows(seed, cold), 0.0, (begin * S, SECONDS * S)) for seed in range(seeds)]


def test_a_window_after_the_start_is_seldom_called_too_early() -> None:
    for begin in (30, 60):
        late = [start for start in starts(begin) if start.late_s or isnan(start.steady_s)]
        assert len(late) <= 3  # of 60, so 5 %


def test_an_empty_endpoint_is_steady_once_it_has_filled() -> None:
    found = starts(0)
    assert sum(start.sign == "in flight" for start in found) >= 55
    seconds = sorted(start.steady_s for start in found)
    assert 4 < seconds[6] < seconds[30] < 15 < seconds[54] < 30
    assert all(start.late_s == start.steady_s for start in found)


def test_a_cold_endpoint_is_steady_once_its_first_tokens_are_quick() -> None:
    """A second slower at first, a tenth of that after 23 s; failures of the first ten seconds show the same."""
    found = starts(0, lambda due: np.exp(-due / 10))
    assert sum(start.sign == "ttft" for start in found) >= 50
    assert 15 < np.median([start.steady_s for start in found]) < 45
    late = [start.late_s for start in starts(10, lambda due: np.exp(-due / 10))]
    assert sum(seconds > 0 for seconds in late) >= 57
    failing = rows(1)
    failing.loc[failing["due"] < 10 * S, "ok"] = False
    assert 9 < start_of(failing, 0.0, (0.0, SECONDS * S)).steady_s < 20


def test_what_cannot_be_told_is_not_said() -> None:
    few = rows(1).head(FEWEST - 1)
    assert isnan(start_of(few, 0.0, (0.0, SECONDS * S)).steady_s)
    rising = rows(2)
    rising["done"] = rising["due"] + (1 + rising["due"] / 5)  # ever more requests are there
    start = start_of(rising, 0.0, (0.0, SECONDS * S))
    assert isnan(start.steady_s) and start.sign == "in flight" and not start.late_s


def test_mser_is_whites_formula() -> None:
    """Against the definition, term by term."""
    for seed in range(5):
        means = np.random.default_rng(seed).normal(size=80)
        means[: 2 * seed] += 3
        terms = [np.sum((means[d:] - means[d:].mean()) ** 2) / (80 - d) ** 2 for d in range(21)]
        assert warmup._head(means) == int(np.argmin(terms))


def test_a_warm_up_that_is_found_moves_the_window_and_nothing_else(tmp_path: Path) -> None:
    load = Load(request_rate=6.0, duration=45.0, warmup="auto", max_context=4096)
    folder = record("azure-conv", named({"h100": "h100"}), load, RunOptions(out=tmp_path / "run"), model="llama2-7b")
    warmup.settle(folder)
    run = reports.open_run(folder)
    [step] = json.loads((folder / "run.json").read_text())["phases"]
    assert step["warmup"] == "found" and step["warmup_s"] == pytest.approx(step["window"][0] / S)
    assert 2 < step["warmup_s"] < 16 and step["window"][1] == 60 * S
    assert (run.rows["counted"] == (run.rows["due"] >= step["window"][0])).all()
    assert run.exchanges()["counted"].to_pylist() == [True] * len(run.rows)
    [result] = reports.summarise(run).results
    assert result.counts.warmup == (run.rows["due"] < step["window"][0]).sum() > 0
    assert result.window == pytest.approx((step["warmup_s"], 60.0))
    before = (folder / "run.json").read_bytes()
    warmup.settle(folder)
    assert (folder / "run.json").read_bytes() == before


def test_a_round_s_warm_up_is_found_before_the_series_looks_at_it(tmp_path: Path) -> None:
    """--stop-early must decide by the same window as the report."""
    load = Load(request_rate=6.0, duration=30.0, warmup="auto", max_context=4096)
    folder = record("azure-conv", named({"h100": "h100"}), load, RunOptions(out=tmp_path / "run"), model="llama2-7b")
    assert reports.open_run(folder).facts.steps[0].warmup == "sought"
    _invalid(folder)
    assert reports.open_run(folder).facts.steps[0].warmup == "found"
