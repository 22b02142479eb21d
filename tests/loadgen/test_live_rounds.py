"""Bake-offs of several rounds, live: lost rounds, ends by hand, the library."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

import reports
from loadgen import Load, bakeoff
from reports.analysis.leaders import leads
from reports.store import rounds_json, run_json
from reports.store.rounds_json import RoundsFacts
from targets import Target
from tests.simulated.servers import serving
from traces import build, write
from traces.trace import NS_PER_S

from .running import Endpoint, Replays, about, command, endpoint, expected, refused, running, trace, until

SECONDS = 0.6  # of a step
ROUNDS = (
    "--rounds", "3", "--round-duration", str(SECONDS), "--drain-timeout", "5", "-m", "m", "--no-evidence", "--out", "r"
)  # fmt: skip


def targets(first: Endpoint, second: Endpoint) -> tuple[str, ...]:
    return ("-t", f"one={first.url}", "-t", f"two={second.url}")


def workers_of(process_id: int) -> list[psutil.Process]:
    """The forks of the Locust process below this one."""
    children = psutil.Process(process_id).children(recursive=True)
    locusts = {child.pid for child in children if "loadgen.run.locustfile" in child.cmdline()}
    return [child for child in children if child.ppid() in locusts]


def lost(series: RoundsFacts) -> list[str]:
    """Why each round is lost, but for those that this machine was too busy for."""
    return ["" if each.lost.startswith("invalid: ") else each.lost for each in series.rounds]


def started(run: Path, number: int) -> bool:
    """Has this round's load begun?"""
    return (run / f"round-{number}" / "run.json").exists() and bool(about(run / f"round-{number}")["phases"])


def test_rounds_over_simulated_servers(tmp_path: Path) -> None:
    """A worker is killed in the second of three rounds, and one of two endpoints can't bear the load."""
    lengths = {"prompt_tokens": [40] * 200, "output_tokens": [10] * 200}
    write(build({"due": range(0, 10 * NS_PER_S, NS_PER_S // 20), **lengths}), tmp_path / "t.csv")
    with (
        serving("h100", "--pool", "4", "--port", "0") as fast,
        serving("a100", "--set", "max_batch=1", "--port", "0") as slow,
    ):
        arguments = (
            "t.csv", "-t", f"fast={fast}", "-t", f"slow={slow}", "-m", "llama2-7b", "--rounds", "3", "--order",
            "parallel", "--round-duration", "1.8", "--drain-timeout", "1", "--processes", "2", "--out", "r",
        )  # fmt: skip
        with running("bakeoff", *arguments, cwd=tmp_path) as process:
            until(lambda: started(tmp_path / "r", 2), 60)
            workers_of(process.pid)[0].kill()
            out, err = process.communicate(timeout=90)
    series = rounds_json.read(tmp_path / "r")
    if lost(series)[2] and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("workers that get no core for 3 s are lost to Locust: the machine is too busy")
    assert [bool(why) for why in lost(series)] == [False, True, False], err
    assert (series.ended, series.order) == ("completed", "parallel")
    assert "its process is gone" in series.rounds[1].lost and "round 2 of 3 is lost: worker" in err
    run = reports.open_run(tmp_path / "r")
    if not all(each.lost for each in series.rounds):  # else all of them speak
        assert "process is gone" in run.lost[2] and 2 not in [part.round for part in run.parts]
    sent = [worker.pid for number in (1, 3) for worker in run_json.read(tmp_path / "r" / f"round-{number}").workers]
    assert len(sent) == len(set(sent)) == 4  # the workers of another process
    results = {result.target: result for result in reports.summarise(run).results}
    assert results["slow"].overloaded and not results["fast"].overloaded
    assert process.returncode in (0, 3), out + err


def test_ctrl_c_ends_the_series_and_keeps_what_was_finished(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        arguments = ("t.csv", *targets(first, second), *ROUNDS)
        with running("bakeoff", *arguments, cwd=tmp_path) as process:
            until(lambda: started(tmp_path / "r", 2), 60)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    series = rounds_json.read(tmp_path / "r")
    assert lost(series) == ["", "interrupted"] and series.ended == "interrupted"
    assert process.returncode == 3 and "one" in out
    assert reports.open_run(tmp_path / "r").parts[0].round == 1


def test_a_series_ends_once_its_gates_are_decided(tmp_path: Path) -> None:
    columns = {"due": range(0, 6 * NS_PER_S, NS_PER_S // 50), "prompt_tokens": [9] * 300, "output_tokens": [4] * 300}
    with endpoint() as first, endpoint() as second:
        pair = [Target("one", first.url, "m"), Target("two", second.url, "m")]
        run = bakeoff(
            build(columns), pair, Load(drain_timeout=5.0), rounds=3, round_duration=SECONDS, load_factors=(1.0, 2.0),
            stop_early=True, slo=["ttft p50 < 10s", "errors < 50%"], out=tmp_path / "r", probe=False, evidence=False,
            report=False,
        )  # fmt: skip
    assert run.series is not None
    busy = any(each.lost for each in run.series.rounds)
    assert busy or (run.series.ended == "decided" and len(run.parts) < 3)
    assert {each for part in run.parts for each in part.rows["step"]} == {"base", "2x"}
    orders = {facts.number: facts for facts in run.series.rounds}
    for part in run.parts:
        facts = orders[part.round]
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


def test_on_a_terminal_a_series_begins_when_it_shall(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        ours, theirs = pty.openpty()
        line = command("bakeoff", "t.csv", *targets(first, second), *ROUNDS)
        with subprocess.Popen(line, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            os.write(ours, b"n\n")
            shown = b""
            with suppress(OSError):  # the other end is closed
                while part := os.read(ours, 1 << 16):
                    shown += part
        os.close(ours)
    assert process.returncode == 3 and b"Begin? [y/N]" in shown and b"3 rounds" in shown
    assert not first.prompts and not (tmp_path / "r").exists()


def test_quick_is_the_first_round_and_says_what_it_is_worth(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 200)
    with endpoint() as first, endpoint() as second:
        done = replayed("bakeoff", "t.csv", *targets(first, second), *ROUNDS, "--quick", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert "One round names no winner of a tail (p99)" in done.stdout
    assert about(tmp_path / "r")["phases"][0]["planned"] == {"one": 30}


def test_the_same_endpoint_under_two_names_has_no_winner(tmp_path: Path) -> None:
    """At most 5 % of such bake-offs may name one: two in a row are no chance."""
    columns = {"due": range(0, 5 * NS_PER_S, NS_PER_S // 50), "prompt_tokens": [9] * 250, "output_tokens": [4] * 250}
    with endpoint() as server:
        pair = [Target("one", server.url, "m"), Target("two", server.url, "m")]
        for attempt in ("r", "again"):
            run = bakeoff(
                build(columns), pair, Load(drain_timeout=5.0), rounds=5, round_duration=0.4, out=tmp_path / attempt,
                probe=False, evidence=False, report=False,
            )  # fmt: skip
            assert run.series is not None and run.series.order == "random" and "share a host" in run.series.why
            firsts = Counter(each.order["base"][0] for each in run.series.rounds)
            assert sorted(firsts.values()) == [2, 3]
            summary = reports.summarise(run)
            if not any(lead.behind for metric in ("ttft", "tpot", "e2e") for lead in leads(summary, metric)):
                return
    raise AssertionError("a winner, twice")
