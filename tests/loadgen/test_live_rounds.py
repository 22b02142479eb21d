"""Bake-offs of several rounds, live: lost rounds, ends by hand, the library."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

import reports
from loadgen import Load, bakeoff
from reports.store import rounds_json, run_json
from targets import Target
from traces import build
from traces.trace import NS_PER_S

from .running import Endpoint, Replays, about, endpoint, expected, refused, running, trace, until

SECONDS = 0.6  # of a step
ROUNDS = ("--rounds", "3", "--round-duration", str(SECONDS), "--drain-timeout", "5", "-m", "m", "--out", "r")


def targets(first: Endpoint, second: Endpoint) -> tuple[str, ...]:
    return ("-t", f"one={first.url}", "-t", f"two={second.url}")


def workers_of(process_id: int) -> list[psutil.Process]:
    """The forks of the Locust process below this one."""
    children = psutil.Process(process_id).children(recursive=True)
    locusts = {child.pid for child in children if "loadgen.run.locustfile" in child.cmdline()}
    return [child for child in children if child.ppid() in locusts]


def started(run: Path, number: int) -> bool:
    """Has this round's load begun?"""
    return (run / f"round-{number}" / "run.json").exists() and bool(about(run / f"round-{number}")["phases"])


def test_a_round_that_loses_a_worker_is_lost_and_the_others_are_kept(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        arguments = ("t.csv", *targets(first, second), *ROUNDS, "--processes", "2")
        with running("bakeoff", *arguments, cwd=tmp_path) as process:
            until(lambda: started(tmp_path / "r", 2), 60)
            killed = workers_of(process.pid)
            killed[0].kill()
            out, err = process.communicate(timeout=60)
    series = rounds_json.read(tmp_path / "r")
    assert [(each.number, bool(each.lost)) for each in series.rounds] == [(1, False), (2, True), (3, False)], err
    assert series.ended == "completed" and "its process is gone" in series.rounds[1].lost
    assert "round 2 of 3 is lost: worker" in err and "round 3 of 3: base:" in err
    run = reports.open_run(tmp_path / "r")
    assert [part.round for part in run.parts] == [1, 3] and "process is gone" in run.lost[2]
    assert process.returncode in (0, 3), out + err
    sent = [worker.pid for number in (1, 3) for worker in run_json.read(tmp_path / "r" / f"round-{number}").workers]
    assert len(sent) == len(set(sent)) == 4  # another process's workers


def test_ctrl_c_ends_the_series_and_keeps_what_was_finished(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        arguments = ("t.csv", *targets(first, second), *ROUNDS)
        with running("bakeoff", *arguments, cwd=tmp_path) as process:
            until(lambda: started(tmp_path / "r", 2), 60)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    series = rounds_json.read(tmp_path / "r")
    assert [each.lost for each in series.rounds] == ["", "interrupted"] and series.ended == "interrupted"
    assert process.returncode == 3 and "one" in out
    assert [part.round for part in reports.open_run(tmp_path / "r").parts] == [1]


def test_a_series_ends_once_its_gates_are_decided(tmp_path: Path) -> None:
    columns = {"due": range(0, 6 * NS_PER_S, NS_PER_S // 50), "prompt_tokens": [9] * 300, "output_tokens": [4] * 300}
    with endpoint() as first, endpoint() as second:
        pair = [Target("one", first.url, "m"), Target("two", second.url, "m")]
        run = bakeoff(
            build(columns), pair, Load(drain_timeout=5.0), rounds=4, round_duration=SECONDS, load_factors=(1.0, 2.0),
            stop_early=True, slo=["ttft p50 < 10s", "errors < 50%"], out=tmp_path / "r", probe=False, report=False,
        )  # fmt: skip
    assert run.series is not None and run.series.ended == "decided" and 1 <= len(run.parts) < 4
    assert {each for part in run.parts for each in part.rows["step"]} == {"base", "2x"}
    for part, facts in zip(run.parts, run.series.rounds, strict=True):
        phases = [(step.name, *step.planned) for step in part.facts.steps]
        assert phases == [(step, name) for step in ("base", "2x") for name in facts.order[step]]
        assert [target.name for target in part.facts.targets] == ["one", "two"]
        assert all(before.end is not None and before.end <= after.start for before, after in pairwise(part.facts.steps))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "2", "--stop-early"], "--stop-early: needs a gate"),
        (["--load", "1,2", "--steps", "1,2"], "--load: can't be combined with --steps"),
        (["--rounds", "200"], "t.csv: its 4 s are too short: 200 rounds of 1 s take 200 s (4 rounds"),
        (["--rounds", "2", "--web-port", "8089"], "--web-port: can't be combined with --rounds"),
        (["--rounds", "2", "--round-duration", "1"], "--round-duration: can't be combined with --duration"),
    ],
)
def test_series_that_cant_begin(tmp_path: Path, arguments: list[str], words: str) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as server:
        own = ("-t", f"a={server.url}", "-m", "m", "--duration", "1")
        done = refused("bakeoff", "t.csv", *own, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "runs").exists() and not server.prompts


def test_quick_is_the_first_round_and_says_what_it_is_worth(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        done = replayed("bakeoff", "t.csv", *targets(first, second), *ROUNDS, "--quick", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert "One round names no winner of a tail (p99)" in done.stdout
    assert about(tmp_path / "r")["phases"][0]["planned"] == {"one": 30}
