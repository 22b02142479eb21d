"""What the rounds of a series send, and rounds in virtual time."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from loadgen.options import Load, RunOptions
from loadgen.rounds import Ladder, rounds_of, seed_of, steps_of, windowed
from loadgen.simulations import named, record, simulate
from reports.store import rounds_json, row_files, run_json
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace, build

from .running import refused, trace

LOAD = Load(duration=10.0)


def even(seconds: int, gap_s: float = 0.5, **columns: list[int]) -> Trace:
    """A request every `gap_s`; the row is its prompt's length, so that it can be told apart."""
    due = np.arange(0, seconds, gap_s)
    about = {"due": (due * NS_PER_S).astype(np.int64), "prompt_tokens": np.arange(1, len(due) + 1)}
    return build({**about, "output_tokens": np.full(len(due), 4), **columns}, name="even")


def lengths(requests: Trace) -> set[int]:
    return set(requests.column("prompt_tokens").tolist())


def test_each_round_takes_another_stretch_of_a_recorded_trace() -> None:
    rounds = rounds_of(even(60), LOAD, Ladder(), 5)
    sent = [lengths(step.requests) for [step] in rounds]
    assert [len(each) for each in sent] == [20] * 5
    assert not any(one & other for one, other in combinations(sent, 2))
    assert all(step.requests.column("due")[0] == 0 and step.requests.span < 10 * NS_PER_S for [step] in rounds)


def test_the_steps_of_a_round_share_its_slices_and_rounds_share_none() -> None:
    rounds = rounds_of(even(60), LOAD, Ladder((0.5, 1.0, 2.0)), 3)
    for half, base, double in rounds:
        assert [half.factor, base.factor, double.factor] == [0.5, 1.0, 2.0]
        assert [half.name, base.name, double.name] == ["0.5x", "base", "2x"]
        assert [len(each.requests) for each in (half, base, double)] == [10, 20, 40]
        assert lengths(half.requests) < lengths(base.requests) < lengths(double.requests)
        assert (half.describe(), base.describe()) == ("trace, 0.5 times its sessions", "trace")
    doubles = [lengths(steps[2].requests) for steps in rounds]
    assert not any(one & other for one, other in combinations(doubles, 2))


def test_another_round_of_a_workload_is_another_seed() -> None:
    rounds = rounds_of("azure-conv", LOAD, Ladder((1.0, 2.0)), 3)
    prints = [step.requests.fingerprint() for steps in rounds for step in steps]
    assert len(set(prints)) == 6
    again = rounds_of("azure-conv", LOAD, Ladder((1.0, 2.0)), 3)
    assert [step.requests.fingerprint() for steps in again for step in steps] == prints
    seeds = [steps[0].load.seed for steps in rounds]
    assert seeds[0] == 0 and len(set(seeds)) == 3
    assert seed_of(0, 2) != seed_of(1, 1) and seed_of(1, 1) == 1


@pytest.mark.parametrize(
    ("load", "rates"),
    [
        (Load(request_rate=4.0, duration=10.0), [2.0, 4.0, 8.0]),
        (Load(concurrency=4, duration=10.0), [2, 4, 8]),
    ],
)
@pytest.mark.parametrize("name", [None, "azure-conv"])
def test_a_load_with_instants_of_its_own_is_multiplied_itself(load: Load, rates: list[float], name: str | None) -> None:
    rounds = rounds_of(name or even(600), load, Ladder((0.5, 1.0, 2.0)), 3)
    for steps in rounds:
        assert [step.load.request_rate or step.load.concurrency for step in steps] == rates
        assert all(step.sessions == 1 for step in steps)
    if name is None:
        sent = [set.union(*(lengths(step.requests) for step in steps)) for steps in rounds]
        assert not any(one & other for one, other in combinations(sent, 2))


def test_a_rate_has_the_requests_that_it_needs() -> None:
    [[step]] = rounds_of("azure-conv", Load(request_rate=400.0, duration=100.0), Ladder(), 1)
    assert len(step.requests) == pytest.approx(40_000, rel=0.05)


def test_the_other_ladder_compresses_time() -> None:
    base, double = rounds_of(even(60), LOAD, Ladder((1.0, 2.0), speedup=True), 3)[1]
    assert double.load.speedup == 2 and double.describe() == "trace x 2"
    assert lengths(base.requests) < lengths(double.requests) and len(double.requests) == 40
    assert [len(each.requests) for each in steps_of(even(60), LOAD, Ladder((1.0, 2.0), speedup=True))] == [20, 40]


@pytest.mark.parametrize(
    ("load", "ladder", "words"),
    [
        (LOAD, Ladder(), "even: its 30 s are too short: 5 rounds of 10 s take 50 s (3 rounds of this length fit; "
         "5 of 6 s (--round-duration) do"),
        (LOAD, Ladder((1.0, 2.0)), "5 rounds of 10 s at up to 2 times the sessions take 100 s (1 round of this length "
         "fits; 5 of 3 s"),
        (Load(duration=40.0), Ladder(), "5 rounds of 40 s take 200 s (5 of 6 s"),
        (Load(duration=10.0, request_rate=2.0), Ladder((2.0,)), "its 60 requests are too few: 5 rounds take 200 "
         "(1 round of this length fits)"),
    ],
)  # fmt: skip
def test_a_trace_that_is_too_short_says_what_fits(load: Load, ladder: Ladder, words: str) -> None:
    with pytest.raises(InputError) as raised:
        rounds_of(even(30), load, ladder, 5)
    assert words in str(raised.value)


def test_what_fits_does_fit() -> None:
    assert len(rounds_of(even(30), LOAD, Ladder(), 3)) == 3
    assert len(rounds_of(even(30), Load(duration=6.0), Ladder(), 5)) == 5
    assert len(rounds_of(even(30), Load(duration=3.0), Ladder((1.0, 2.0)), 5)) == 5


def test_simulated_rounds_are_runs_on_one_axis(tmp_path: Path) -> None:
    targets = named({"fast": "h100,pool=1", "slow": "a100,pool=1"})
    options, ladder = RunOptions(out=tmp_path / "r"), Ladder((0.5, 1.0))
    load = Load(duration=20.0, warmup=2.0)
    folder = record("azure-conv", targets, load, options, model="llama2-7b", ladder=ladder, rounds=3)
    series = rounds_json.read(folder)
    assert (series.planned, series.ended, series.factors, series.simulated) == (3, "completed", (0.5, 1.0), True)
    assert [each.number for each in series.rounds] == [1, 2, 3] and not any(each.lost for each in series.rounds)
    ends = 0
    for each in series.rounds:
        inside = rounds_json.round_folder(folder, each.number)
        facts = run_json.read(inside)
        assert facts.clock is not None and facts.clock.origin_ns == ends and facts.seed == each.seed
        assert [(step.name, step.factor) for step in facts.steps] == [("0.5x", 0.5), ("base", 1.0)]
        light, base = facts.steps
        assert light.end is not None and base.end is not None and light.end <= base.start
        assert base.window == (base.start + 2 * NS_PER_S, base.start + 22 * NS_PER_S)
        rows = row_files.read(inside).to_pandas()
        for step in facts.steps:
            mine = rows[rows["step"] == step.name]
            assert dict(mine.groupby("target").size()) == step.planned
            assert mine["due"].min() >= step.start and mine["due"].max() < step.window[1]
            assert (mine["counted"] == (mine["due"] >= step.window[0])).all()
        ends += base.end
    assert rounds_json.read(folder) == series


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["azure-conv", "--rounds", "0"], "--rounds: must be at least 1"),
        (["azure-conv", "--load", "1,x"], "--load"),
        (["azure-conv", "--load", "1,1"], "--load: a factor comes twice"),
        (["azure-conv", "--rounds", "2", "--duration", "5", "--round-duration", "5"], "--round-duration: can't be"),
        (["t.csv", "--rounds", "2", "--round-duration", "5"], "t.csv: its 0 s are too short"),
        (["azure-conv", "--rounds", "2", "--sweep", "speedup=1..2"], "--sweep: can't be combined with --rounds"),
    ],
)
def test_rounds_that_cant_be_made(tmp_path: Path, arguments: list[str], words: str) -> None:
    trace(tmp_path / "t.csv", 3)
    done = refused("simulate", *arguments, "--target", "h100", cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_window_is_named_once() -> None:
    assert windowed(Load(), None).duration is None and windowed(Load(), 5.0).duration == 5
    with pytest.raises(InputError, match="--round-duration"):
        windowed(Load(duration=4.0), 5.0)


def test_rounds_json_names_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        rounds_json.read(tmp_path)
    (tmp_path / "rounds.json").write_text("{}")
    with pytest.raises(InputError, match="field name: is missing"):
        rounds_json.read(tmp_path)


def test_the_library_simulates_rounds(tmp_path: Path) -> None:
    run = simulate(
        "azure-conv", {"fast": "h100"}, rounds=2, round_duration=8.0, load_factors=(0.5, 1.0), out=tmp_path / "r"
    )
    assert [part.round for part in run.parts] == [1, 2] and (tmp_path / "r" / "report.html").exists()
    assert {step.name: step.factor for step in run.facts.steps} == {"0.5x": 0.5, "base": 1.0}
