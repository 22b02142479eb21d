"""Paired comparison: known ratios are found, intervals hold, failures count, unlike lengths are not compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.analysis import comparison
from reports.analysis.comparison import Interval
from reports.analysis.leaders import Flip, crossovers, flips_of_pairs
from reports.analysis.summary import Summary
from reports.render import findings
from reports.store import run_folder
from reports.store.run_folder import Run
from tests.commands import phaseload
from tests.reports import made
from traces.errors import InputError


def side(ttft: Any, tpot: Any = None, ok: Any = True, output: int = 100) -> pd.DataFrame:
    n = len(ttft)
    return pd.DataFrame({
        "round": 1, "index": np.arange(n), "due": np.arange(n) * 1e8, "counted": True, "attempt": 1,
        "ok": np.broadcast_to(ok, n),
        "prompt_tokens": 500.0, "output_tokens": 100.0, "output_count": float(output), "ttft": ttft,
        "tpot": np.full(n, 0.01) if tpot is None else tpot, "e2e": np.asarray(ttft) + 1.0,
    })  # fmt: skip


def requests(n: int = 400, seed: int = 1) -> np.ndarray:
    """Durations that differ a hundredfold from request to request."""
    return np.exp(np.random.default_rng(seed).normal(-3, 1.5, n))


def test_a_small_difference_is_seen_through_large_lengths() -> None:
    rng, base = np.random.default_rng(2), requests()
    found = comparison.of_pair(side(base), side(base * 1.1 * rng.lognormal(0, 0.1, len(base))), "a", "b", "")
    ttft = found.metrics["ttft"]
    assert ttft.winner == "a"
    assert ttft.median.low < 1.1 < ttft.median.high
    assert ttft.median.value == pytest.approx(1.1, rel=0.03)
    assert ttft.p99.low <= ttft.p99.value <= ttft.p99.high
    assert found.metrics["tpot"].winner is None


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (1.003, "no clear difference (1.00–1.00)"),
        (1 / 1.003, "no clear difference (0.997–0.997)"),
        (1.05, "a 1.05x (1.05–1.05)"),
        (1 / 1.05, "b 1.05x (1.05–1.05)"),
    ],
)
def test_less_than_two_per_cent_is_no_lead_however_many_pairs_prove_it(factor: float, says: str) -> None:
    found = comparison.of_pair(side(requests()), side(requests() * factor), "a", "b", "")
    ttft = found.metrics["ttft"]
    assert findings.faster(found, ttft.median) == findings.faster(found, ttft.p99) == says
    assert ttft.winner == {"a": "a", "b": "b", "n": None}[says[0]]


def test_the_interval_of_the_median_ratio_holds_19_times_of_20() -> None:
    held = 0
    for seed in range(120):
        rng, base = np.random.default_rng(seed), requests(60, seed)
        found = comparison.of_pair(side(base), side(base * rng.lognormal(0.05, 0.4, len(base))), "a", "b", "")
        median = found.metrics["ttft"].median
        held += median.low <= np.exp(0.05) <= (np.inf if median.high is None else median.high)
    assert held >= 0.93 * 120


def test_the_bootstrap_is_seeded_and_its_interval_is_honest() -> None:
    base, held = requests(600), 0
    assert (
        comparison.bootstrap(base, base * 2, 0.99)
        == comparison.bootstrap(base, base * 2, 0.99)
        == pytest.approx((2, 2))
    )
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.lognormal(0, 0.5, 600), rng.lognormal(0.3, 0.5, 600)
        low, high = comparison.bootstrap(a, b, 0.99)
        held += low <= np.exp(0.3) <= high
    assert held >= 34


def test_failures_are_won_by_the_one_that_answered() -> None:
    base = requests(100)
    answered = np.arange(100) % 10 != 0
    found = comparison.of_pair(side(base), side(base, ok=answered), "a", "b", "")
    ttft = found.metrics["ttft"]
    assert (ttft.base_won, ttft.other_won, ttft.n) == (0.1, 0.0, 100)
    assert (found.base_failed, found.other_failed) == (0, 10)
    nothing = comparison.of_pair(side(base), side(base, ok=False), "a", "b", "").metrics["ttft"]
    assert nothing.winner == "a"
    assert nothing.median == Interval(None, None, None)
    assert findings.faster(found, nothing.median) == "a: b failed too often"
    reverse = comparison.of_pair(side(base, ok=False), side(base), "a", "b", "").metrics["ttft"]
    assert reverse.winner == "b"
    assert comparison.of_pair(side(base, ok=False), side(base, ok=False), "a", "b", "").metrics["ttft"] is None


def test_unlike_lengths_are_not_compared() -> None:
    base = requests(100)
    assert comparison.of_pair(side(base), side(base, output=109), "a", "b", "").metrics["e2e"] is not None
    found = comparison.of_pair(side(base), side(base, output=115), "a", "b", "")
    assert found.metrics["e2e"] is None
    assert found.by_output == []
    assert found.metrics["ttft"] is not None
    assert "not comparable: gave 100 / 115 tokens" in str(list(findings.comparison_rows([found])))


def test_only_requests_counted_on_both_sides_are_paired() -> None:
    base, other = side(requests(100)), side(requests(100))
    other.loc[:9, "counted"] = False
    other.loc[10:19, "attempt"] = 2
    assert comparison.of_pair(base, other.iloc[:80], "a", "b", "").pairs == 60
    assert comparison.of_pair(base, other.iloc[:22], "a", "b", "").metrics["ttft"] is None


def test_a_run_against_its_truth(read_back: Run, summed: Summary) -> None:
    """The rack decodes at 4.4 ms whatever the load, and its queue eats that lead at 3x."""
    found = summed.comparison
    assert [(one.base, one.other, one.step) for one in found] == [
        (a, b, step)
        for a, b in (("h100", "groqrack"), ("h100", "gpu+groq"), ("groqrack", "gpu+groq"))
        for step in ("1x", "3x")
    ]
    assert [one.metrics["ttft"].winner for one in found[:4]] == ["h100"] * 4
    assert [one.metrics["tpot"].winner for one in found[:2]] == ["groqrack"] * 2
    assert flips_of_pairs(found, "e2e") == [Flip("3x", ("groqrack",), ("h100",)), Flip("3x", ("gpu+groq",), ("h100",))]
    assert flips_of_pairs(found, "tpot") == []
    assert {one.base for one in comparison.compare(read_back, base="groqrack")} == {"groqrack"}
    for one in found:
        assert sum(row.n for row in one.by_prompt) == one.pairs


def test_the_crossing_in_concurrency_is_found(summed: Summary) -> None:
    crossings = {(leader, follower): at for leader, follower, at in crossovers(summed, "e2e")}
    assert set(crossings) == {("groqrack", "h100"), ("gpu+groq", "h100")}
    assert all(9 < at < 130 for at in crossings.values())
    assert list(crossovers(summed, "tpot")) == []


def test_two_runs(tmp_path: Path, read_back: Run) -> None:
    slower = made.Made("h100", prefill=12_000, tpot=0.0062, per_peer=0.00022)
    after = made.run(tmp_path / "after", (slower,), steps={"1x": 9.0}, change=lambda facts: facts.update(name="after"))
    found = comparison.compare(read_back, run_folder.open_run(after))
    assert [(one.base, one.other, one.step) for one in found] == [("h100 (made)", "h100 (after)", "1x")]
    assert found[0].metrics["ttft"].winner == "h100 (made)"
    other = made.run(tmp_path / "other", (made.RACK,), steps={"1x": 9.0}, change=lambda facts: facts.update(name="o"))
    assert comparison.compare(run_folder.open_run(after), run_folder.open_run(other))[0].other == "groqrack (o)"
    strange = made.run(tmp_path / "s", (made.GPU,), change=lambda facts: facts["trace"].update(fingerprint="ff"))
    with pytest.raises(InputError, match="different traces"):
        comparison.compare(read_back, run_folder.open_run(strange))
    corpus = {"source": "own.jsonl", "fingerprint": "ff", "texts": 1, "words": 1}
    reworded = made.run(tmp_path / "r", (slower,), steps={"1x": 9.0}, change=lambda facts: facts.update(prompts=corpus))
    with pytest.raises(InputError, match="prompts from different texts"):
        comparison.compare(read_back, run_folder.open_run(reworded))
    assert comparison.compare(run_folder.open_run(reworded), run_folder.open_run(reworded))
    with pytest.raises(InputError, match="no target 'nobody' here"):
        comparison.compare(read_back, base="nobody")


def test_the_command(bakeoff: Path, tmp_path: Path) -> None:
    done = phaseload("compare", bakeoff, "--base", "h100")
    assert "The lead in whole request flips at 3x: groqrack lost it to h100." in done.stdout
    assert len(json.loads(phaseload("compare", bakeoff, "--base", "h100", "--json").stdout)) == 4
    alone = made.run(tmp_path, (made.GPU,), seconds=10)
    failed = phaseload("compare", alone)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "one target only" in failed.stderr


def test_the_command_says_that_rows_are_gone(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU, made.RACK), steps={"1x": 5.0, "2x": 5.0}, seconds=10)
    next((folder / "exchanges").iterdir()).write_bytes(b"PAR1")
    done = phaseload("compare", folder, "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == 1
    assert "row files are gone or unreadable" in done.stderr
