"""A later run against a baseline: what may regress, by how much, and which runs can't be compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.options import Load, RunOptions
from loadgen.simulations import named, record
from reports import open_run, summarise
from reports.analysis.baseline import Pairs, regressions
from reports.analysis.gates import Decision
from reports.analysis.judgement import Regression
from reports.analysis.quantiles import BATCHES, ONE_SIDED
from reports.analysis.student import t
from reports.store.run_folder import Run
from traces.errors import InputError

from . import made


def queued(rng: np.random.Generator, n: int = 1200) -> Any:
    """Durations of requests that share a queue: each remembers the one before (autocorrelation 0.9)."""
    noise = rng.normal(size=n)
    level = np.empty(n)
    level[0] = noise[0]
    for i in range(1, n):
        level[i] = 0.9 * level[i - 1] + np.sqrt(1 - 0.81) * noise[i]
    return np.exp(0.3 * level)


@pytest.mark.parametrize("q", [0.5, 0.9, None])
def test_false_verdicts_at_the_limit_are_rare(q: float | None) -> None:
    """The true ratio is the allowed one: each verdict is false, and at most one in twenty may fall on either side."""
    rng, limit, passed, failed, trials = np.random.default_rng(5), t(BATCHES - 1, ONE_SIDED), 0, 0, 300
    unit = np.arange(1200) * BATCHES // 1200
    for _ in range(trials):
        lead = Pairs(queued(rng), 1.1 * queued(rng), unit, BATCHES).lead(1.1, q)
        passed, failed = passed + (lead < -limit), failed + (lead > limit)
    assert max(passed, failed) <= trials * 0.05 + 2.5 * np.sqrt(trials * 0.05 * 0.95)
    assert passed and failed  # and it does decide at times


def test_the_interval_is_where_the_test_turns() -> None:
    rng = np.random.default_rng(6)
    pairs = Pairs(queued(rng), 1.3 * queued(rng), np.arange(1200) * BATCHES // 1200, BATCHES)
    low, high = pairs.interval(0.5)
    limit = t(BATCHES - 1, ONE_SIDED)
    assert low < 1.3 < high
    assert pairs.lead(low * 0.99, 0.5) > limit >= pairs.lead(low * 1.01, 0.5)
    assert pairs.lead(high * 0.99, 0.5) >= -limit > pairs.lead(high * 1.01, 0.5)


def test_failures_are_infinitely_slow() -> None:
    before = np.linspace(1, 2, 100)
    after = np.where(np.arange(100) % 5 < 3, np.inf, before)
    pairs = Pairs(before, after, np.arange(100) // 10, BATCHES)
    assert pairs.interval(0.5)[1] == np.inf and pairs.lead(1.1, 0.5) > t(BATCHES - 1, ONE_SIDED)


def simulated(folder: Path, **load: Any) -> Run:
    """Two minutes of a third of its capacity, in virtual time."""
    paced = Load(**{"request_rate": 3.0, "duration": 150.0, "warmup": 10.0, "max_context": 4096} | load)
    options = RunOptions(out=folder, goodput=["ttft:1s"])
    return open_run(record("azure-conv", named({"server": "h100"}), paced, options, model="llama2-7b"))


def against(before: Run, after: Run, *allowances: str) -> list[Regression]:
    return regressions((before, after), (summarise(before), summarise(after)), allowances)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulated(tmp_path_factory.mktemp("before") / "run")


def test_a_regression_of_15_percent_is_found_and_equal_servers_pass(before: Run, tmp_path: Path) -> None:
    slower = made.slowed(before, tmp_path / "slower", 1.15)
    [found] = against(before, slower, "ttft p50 10%")
    assert str(found.decision) == "fail" and found.figure == pytest.approx(0.15, abs=0.03), found
    assert found.before and found.after and found.low and found.high
    assert found.low < 0.15 < found.high and found.after / found.before == pytest.approx(1.15, abs=0.01)
    equal = made.slowed(before, tmp_path / "equal", 1.0)
    passed = against(before, equal, "ttft p50 10%", "ttft mean 10%", "tpot p50 5%", "goodput 5%", "tokens 5%")
    assert [str(verdict.decision) for verdict in passed] == ["pass"] * 5
    [better] = against(slower, before, "ttft p50 10%")
    assert str(better.decision) == "pass" and better.figure and better.figure < 0


def test_too_few_for_a_tail_is_no_verdict(before: Run, tmp_path: Path) -> None:
    short = [simulated(tmp_path / name, duration=60.0) for name in ("a", "b")]
    [verdict] = against(short[0], short[1], "ttft p99 10%")
    assert str(verdict.decision) == "no verdict" and "needs 500: run both about" in verdict.note
    assert verdict.more_s and verdict.more_s > 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "differ in trace ("),
        ({"request_rate": 4.0}, "load of simulate (3 requests/s, 150 s and 4 requests/s, 150 s)"),
        ({"duration": 100.0}, "150 s and 3 requests/s, 100 s)"),
    ],
)
def test_unlike_runs_are_refused(before: Run, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="the runs differ in") as refused:
        against(before, simulated(tmp_path / "other", **change), "ttft p50 10%")
    assert words in str(refused.value)


def test_another_model_or_client_is_refused(before: Run, tmp_path: Path) -> None:
    for change, words in (({"version": "9.9"}, "client's version (0.1.0 and 9.9)"), ({"model": "other"}, "model (")):
        other = made.slowed(before, tmp_path / words[:6], 1.0, **change)
        with pytest.raises(InputError) as refused:
            against(before, other, "ttft p50 10%")
        assert words in str(refused.value)


def test_what_concerns_nothing_is_refused(before: Run) -> None:
    for allowance, words in (("itl p50 5%", "no pairs"), ("other: ttft p50 5%", "no such target")):
        with pytest.raises(InputError, match=words):
            against(before, before, allowance)


def test_runs_that_have_no_round_in_common_decide_nothing(tmp_path: Path) -> None:
    runs = []
    for name, gone in (("before", 2), ("after", 1)):
        shutil.rmtree(made.rounds(tmp_path / name, 2, targets=(made.GPU,), seconds=10.0) / f"round-{gone}")
        runs.append(open_run(tmp_path / name))
    [verdict] = against(runs[0], runs[1], "ttft p50 10%")
    assert verdict.decision is Decision.NO_VERDICT and verdict.n == 0


def test_what_is_overloaded_passes_nothing_on_its_times(tmp_path: Path) -> None:
    run = simulated(tmp_path / "run", request_rate=20.0, duration=120.0)
    ttft, tokens = against(run, run, "ttft p50 10%", "tokens 10%")
    assert str(ttft.decision) == "no verdict" and ttft.note.startswith("overloaded") and ttft.more_s is None
    assert str(tokens.decision) == "pass"
