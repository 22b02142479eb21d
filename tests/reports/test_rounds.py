"""A folder of rounds reads as one run: rows, counts, digests, samples; and what a lost round leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from reports import judge, number_format, open_run, summarise
from reports.analysis.firmness import undecided
from reports.analysis.quantiles import plain
from reports.analysis.samples import samples_of
from reports.analysis.steadiness import Headroom, State, Steadiness
from reports.analysis.student import cdf, t
from reports.render import findings
from reports.store import rounds_json
from reports.store.rounds_json import RoundFacts, RoundsFacts
from reports.store.run_folder import Run
from targets.exchange import Outcome
from tests.reports import made
from tests.reports.made import GPU, RACK, S
from traces.errors import InputError

COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps = {"1x": 8.0, "2x": 16.0}
    return made.rounds(tmp_path_factory.mktemp("bakeoff"), COUNT, targets=(GPU, RACK), steps=steps, seconds=30.0)


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return open_run(folder)


def test_rounds_are_one_run(folder: Path, run: Run) -> None:
    alone = [open_run(folder / f"round-{number}") for number in range(1, COUNT + 1)]
    assert [part.round for part in run.parts] == [1, 2, 3] and not run.lost
    assert len(run.rows) == sum(len(each.rows) for each in alone) == run.exchanges().num_rows
    assert run.rows["due"].is_monotonic_increasing
    assert run.lacking == 0 and run.name == folder.name
    assert alone[0].parts == (alone[0],)
    for part, each in zip(run.parts, alone, strict=True):
        hours = 3600 * S * (part.round - 1)
        assert np.allclose(part.rows["due"] - hours, each.rows["due"], atol=1e3)
        assert np.allclose(part.rows["in_flight"], each.rows["in_flight"])
        key = ("h100", "1x")
        assert part.window(key, part.rows)[0] - hours == each.window(key, each.rows)[0]
        assert (part.gaps[key] == each.gaps[key]).all()


def test_a_sample_holds_those_of_its_rounds(folder: Path, run: Run) -> None:
    key, objectives = ("groqrack", "1x"), {"ttft": 0.2}
    whole = samples_of(run, objectives)[key]
    alone = [samples_of(open_run(folder / f"round-{number}"), objectives)[key] for number in range(1, COUNT + 1)]
    assert [each.round for each in whole.rounds] == [1, 2, 3]
    assert whole.n == sum(each.n for each in alone) == len(whole.counted)
    assert whole.failed == sum(each.failed for each in alone)
    assert whole.good == sum(each.good or 0 for each in alone)
    assert whole.window_s == pytest.approx(sum(each.window_s for each in alone)) == pytest.approx(3 * 27)
    assert whole.throughput.requests_per_s == pytest.approx(np.mean([each.throughput.requests_per_s for each in alone]))
    assert len(whole.sizes) == 30 and whole.sizes.sum() == whole.n
    assert whole.good_in is not None and whole.good_in.sum() == whole.good
    assert whole.values["ttft"].tolist() == sorted(value for each in alone for value in each.values["ttft"])
    assert len(whole.values["itl"]) == sum(len(each.values["itl"]) for each in alone)
    for part, each in zip(whole.ordered["ttft"].rounds, alone, strict=True):
        assert (part.values == each.ordered["ttft"].values).all() and (part.batch == each.ordered["ttft"].batch).all()
        assert part.seconds == pytest.approx(each.window_s)


def test_a_figure_over_rounds_is_the_mean_of_their_logarithms(folder: Path, run: Run) -> None:
    median = summarise(run).results[0].quantile("ttft", 0.5)
    each = [summarise(open_run(folder / f"round-{n}")).results[0].quantile("ttft", 0.5) for n in range(1, COUNT + 1)]
    logs = [log(figure.value) for figure in each]
    half = t(2, 0.975) * np.std(logs, ddof=1) / 3**0.5
    assert median.value == pytest.approx(exp(np.mean(logs)))
    low, high = exp(np.mean(logs) - half), exp(np.mean(logs) + half)
    assert median.low <= low * 1.0001 and median.high >= high * 0.9999
    assert median.low == pytest.approx(low, rel=0.1) and median.high == pytest.approx(high, rel=0.1)
    assert median.rounds == 3 and median.worst == max(figure.value for figure in each)


def test_the_summary_counts_a_request_of_each_round(run: Run) -> None:
    summary = summarise(run)
    assert summary.run.rounds == (1, 2, 3) and summary.digests == "from the workers"
    assert summary.validity.status == "valid"
    for result in summary.results:
        assert result.counts.requests == result.counts.counted
        assert result.counts.recorded == result.counts.planned
    assert {pair.pairs for pair in summary.comparison} == {result.counts.counted for result in summary.results}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda facts: facts["workers"][0].update(lost="killed"), "worker 0 lost: killed"),
        (lambda facts: facts.update(ended="interrupted"), "it was interrupted"),
        (lambda facts: facts.update(ended="running"), "it never ended"),
        (lambda facts: facts["workers"][0].update(rows=facts["workers"][0]["rows"] + 7), "7 rows are missing"),
        (lambda facts: facts.update(ended="sideways"), "sideways"),
    ],
)
def test_a_lost_round_is_named_and_the_others_decide(tmp_path: Path, change: Any, why: str) -> None:
    made.rounds(tmp_path, 3, targets=(GPU,), seconds=12.0)
    _edited(tmp_path / "round-2", change)
    run = open_run(tmp_path)
    assert [part.round for part in run.parts] == [1, 3] and why in run.lost[2]
    assert set(run.rows["round"]) == {1, 3}
    summary = summarise(run)
    assert summary.validity.status == "valid" and why in summary.run.lost["2"]
    assert summary.results[0].quantile("ttft", 0.5).rounds == 2


def test_rounds_json_names_the_series_and_what_it_lost(tmp_path: Path) -> None:
    made.rounds(tmp_path, 2, targets=(GPU,), seconds=12.0)
    lost = (RoundFacts(2, seed=8, lost="the machine slept"), RoundFacts(3, seed=9, lost="no worker was left"))
    rounds_json.write(tmp_path, RoundsFacts(
        name="five", created="2026-11-21T01:30:00+00:00", version="1", seed=7, planned=5, order="parallel",
        factors=(1.0,), rounds=(RoundFacts(1, seed=7), *lost), ended="interrupted",
    ))  # fmt: skip
    run = open_run(tmp_path)
    assert run.name == "five" and run.series is not None and run.series.planned == 5
    assert [part.round for part in run.parts] == [1]
    assert run.lost == {2: "the machine slept", 3: "no worker was left"}


def test_a_tail_of_many_seconds_is_said_in_seconds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_format, "LONG", 0.0)
    said = [note for note in findings.notes(summarise(run)) if "in the worst" in note]
    assert said and all(" s in the worst, and may be another next time: " in note for note in said)


def test_a_round_whose_folder_is_gone_is_lost(tmp_path: Path) -> None:
    made.rounds(tmp_path, 3, targets=(GPU,), seconds=12.0)
    rounds_json.write(tmp_path, RoundsFacts(
        name="three", created="2026-11-21T01:30:00+00:00", version="1", seed=7, planned=3, order="parallel",
        factors=(1.0,), rounds=tuple(RoundFacts(number, seed=7) for number in (1, 2, 3)), ended="completed",
    ))  # fmt: skip
    shutil.rmtree(tmp_path / "round-2")
    run = open_run(tmp_path)
    assert [part.round for part in run.parts] == [1, 3] and run.lost == {2: "its folder is missing"}


def test_gates_that_may_end_a_series_have_stricter_bounds(tmp_path: Path) -> None:
    made.rounds(tmp_path, 2, targets=(GPU,), seconds=40.0)
    bounds = {}
    for early in (False, True):
        rounds_json.write(tmp_path, RoundsFacts(
            name="early", created="2026-11-21T01:30:00+00:00", version="1", seed=7, planned=8, order="parallel",
            factors=(1.0,), stop_early=early, rounds=(RoundFacts(1, seed=7), RoundFacts(2, seed=8)), ended="decided",
        ))  # fmt: skip
        [verdict] = judge(open_run(tmp_path), "errors < 2%")
        assert verdict.rounds == 2
        bounds[early] = (verdict.low or 0.0, verdict.high or 1.0)
    assert bounds[True][0] < bounds[False][0] < bounds[False][1] < bounds[True][1]


def test_where_all_rounds_are_lost_what_they_recorded_still_speaks(tmp_path: Path) -> None:
    made.rounds(tmp_path, 2, targets=(GPU,), seconds=12.0, change=lambda facts: facts.update(ended="worker_lost"))
    run = open_run(tmp_path)
    assert len(run.parts) == 2 and run.facts.ended == "worker_lost"
    assert summarise(run).validity.status == "invalid"


def test_rounds_that_hold_nothing_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "round-1").mkdir()
    with pytest.raises(InputError, match="no round can be read: round 1"):
        open_run(tmp_path)


def test_rounds_whose_files_hold_no_row_are_read(tmp_path: Path) -> None:
    for path in made.rounds(tmp_path / "x", 2, targets=(GPU,), seconds=10.0).rglob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    run = open_run(tmp_path / "x")
    assert not len(run.rows) and run.lacking > 0
    assert summarise(run).validity.status == "invalid"


def test_rounds_in_virtual_time_come_one_after_the_other(tmp_path: Path) -> None:
    made.rounds(tmp_path, 2, targets=(GPU,), seconds=12.0, change=lambda facts: facts.update(clock={"origin_ns": 0}))
    first, second = open_run(tmp_path).parts
    assert second.rows["due"].min() > first.rows["done"].max()


def test_failures_of_one_round_leave_the_figure_unbounded(tmp_path: Path) -> None:
    made.rounds(tmp_path, 2, targets=(GPU,), seconds=60.0)
    folder = tmp_path / "round-3"
    made.run(folder, targets=(made.Made("h100", 24_000, 0.006, fails=0.2),), seconds=60.0)
    summary = summarise(open_run(tmp_path))
    assert summary.results[0].counts.outcomes[Outcome.OK.value] < summary.results[0].counts.counted
    tail, median = (summary.results[0].quantile("ttft", q) for q in (0.99, 0.5))
    assert tail.unbounded and tail.value == tail.worst == tail.high == float("inf")
    assert median.low < median.value < median.high < 1


def _edited(folder: Path, change: Any) -> None:
    facts = json.loads((folder / "run.json").read_text())
    change(facts)
    (folder / "run.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(  # Fisher and Yates, Statistical Tables, table III
    ("df", "share", "value"),
    [(1, 0.975, 12.706), (2, 0.95, 2.920), (3, 0.995, 5.841), (4, 0.975, 2.776), (8, 0.995, 3.355), (9, 0.95, 1.833),
     (29, 0.975, 2.045), (60, 0.975, 2.000), (120, 0.995, 2.617)],
)  # fmt: skip
def test_students_t(df: int, share: float, value: float) -> None:
    assert t(df, share) == pytest.approx(value, abs=0.0006)
    assert t(df, 1 - share) == -t(df, share)
    assert cdf(t(df, share), df) == pytest.approx(share)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"rounds": 3}, "3 of 5 rounds"),
        ({"round_s": 120.0}, "rounds of 120 s, needs 300 s"),
        ({"n": 900}, "900 requests, needs 1,495"),
        ({"shown": False}, "too near"),
        ({"state": State.OVERLOADED}, "overloaded: its backlog grew"),
        ({"q": 0.5, "shown": False, "round_s": 60.0}, "rounds of 60 s, needs 300 s"),
        ({"q": 0.5, "shown": True, "round_s": 60.0}, ""),
        ({"q": 0.5, "shown": False}, ""),
        ({"q": 0.5, "state": State.OVERLOADED}, "overloaded: its backlog grew"),
    ],
)
def test_what_decides_nothing_and_why(change: dict[str, Any], why: str) -> None:
    asked = {"q": 0.99, "rounds": 5, "n": 3000, "round_s": 600.0, "shown": True, "state": State.STEADY} | change
    figure = replace(plain(np.arange(1.0, asked["n"] + 1), asked["q"]), rounds=asked["rounds"])
    state = Steadiness(asked["state"], "its backlog grew")
    assert undecided(figure, asked["round_s"], state, Headroom(asked["shown"], "too near")) == why
