"""`phaseload bakeoff`: the demonstration in small, its endpoints' ends, own targets one after the other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from loadgen.demonstration import LADDER, LOAD, THREE, USE, WORKLOAD, sized
from loadgen.options import Load
from loadgen.rounds import Ladder, steps_of
from targets.simulated.analysis import capacity

from .running import Replays, about, endpoint, expected, phaseload, refused, rows, running, trace, until

SMALL = ("--duration", "2", "--warmup", "0", "--request-rate", "4", "--steps", "1", "--drain-timeout", "20")


def endpoints_of(process_id: int) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(process_id).children() if "targets.simulated" in " ".join(child.cmdline())
    ]


def test_the_demonstration_in_small(tmp_path: Path) -> None:
    done = phaseload("bakeoff", *SMALL, "--report", "--out", "r", cwd=tmp_path, timeout=90)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert "This was a demonstration" in done.stdout
    assert "report: r/report.html" in done.stdout
    facts = about(tmp_path / "r")
    assert [target["name"] for target in facts["targets"]] == [one.name for one in THREE]
    assert all(target["embedded"] and target["standing"] for target in facts["targets"])
    table = rows(tmp_path / "r")
    by_target = {name: set() for name in facts["phases"][0]["planned"]}
    for row in table.select(["target", "index", "outcome"]).to_pylist():
        assert row["outcome"] == "ok"
        by_target[row["target"]].add(row["index"])
    assert len({frozenset(indices) for indices in by_target.values()}) == 1
    ours = [
        p for p in psutil.process_iter(["cmdline", "cwd"]) if "targets.simulated" in " ".join(p.info["cmdline"] or [])
    ]
    assert not [p for p in ours if p.info["cwd"] == str(tmp_path)]


def test_endpoints_die_with_a_killed_run(tmp_path: Path) -> None:
    with running("bakeoff", "--out", "r", cwd=tmp_path) as process:
        until(lambda: len(endpoints_of(process.pid)) == len(THREE))
        children = endpoints_of(process.pid)
        process.kill()
        process.wait()
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_own_targets_one_after_the_other(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 10)
    with endpoint() as first, endpoint() as second:
        done = replayed(
            "bakeoff", "t.csv", "-t", f"one={first.url}", "-t", f"two={second.url}", "-m", "m", "--steps", "1,2",
            "--out", "r", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert "demonstration" not in done.stdout
    assert about(tmp_path / "r")["order"] == "sequential"
    phases = about(tmp_path / "r")["phases"]
    assert [(phase["name"], phase["planned"]) for phase in phases] == [
        (step, {target: 10}) for step in ("base", "2x") for target in ("one", "two")
    ]
    assert all(before["end"] <= after["start"] for before, after in pairwise(phases))
    ends = sorted(end for _, end in first.spans.values())
    starts = sorted(start for start, _ in second.spans.values())
    assert ends[9] <= starts[0]
    prompts = first.prompts + second.prompts
    assert len(set(prompts)) == len(prompts) == 40  # salted by target and step


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--order", "shuffled"], "--order"),
        (["--steps", "1,x"], "--steps"),
        (["--target", "http://127.0.0.1:9"], "--target"),
        (["--target", "a=http://127.0.0.1:9", "--target", "a=http://127.0.0.1:9"], "--target"),
        (["--target", "a=http://127.0.0.1:9"], "nobody answers"),
        (["--targets", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_unusable_targets(tmp_path: Path, arguments: list[str], named: str) -> None:
    done = refused("bakeoff", "azure-conv", "--duration", "1", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_demonstrations_pools_are_used_to_about_60_percent() -> None:
    sample = list(LOAD.requests(WORKLOAD))
    assert LOAD.request_rate is not None
    for made in sized(THREE, WORKLOAD, LOAD):
        pools = [int(part) for part in made.settings["pool"].split(":")]
        for size, one in zip(pools, capacity(made.profile, sample, settings=made.settings), strict=True):
            assert 0.3 <= LOAD.request_rate / (size * one) <= USE + 0.02


def test_the_demonstration_can_bound_p99() -> None:
    counted = sum(request.due >= LOAD.warmup * 1e9 for request in LOAD.requests(WORKLOAD))
    assert counted >= 500


def test_steps_multiply_any_kind_of_load() -> None:
    compressed = Ladder((1.0, 3.0), speedup=True, step_s=4.0)
    steps = steps_of(WORKLOAD, Load(request_rate=2.0, duration=9, warmup=1), compressed)
    loads = [(step.name, step.factor, step.load) for step in steps]
    assert [(name, factor, load.request_rate, load.duration, load.warmup) for name, factor, load in loads] == [
        ("base", 1.0, 2.0, 9, 1),
        ("3x", 3.0, 6.0, 4.0, 0.0),
    ]
    assert [len(step.requests) for step in steps] == pytest.approx([20, 24], abs=8)
    assert compressed.load(Load(concurrency=3), 2.5).concurrency == 8
    assert compressed.load(Load(speedup=2), 2).speedup == 4
    assert [step.factor for step in steps_of(WORKLOAD, LOAD, LADDER)] == [0.1, 1.0, 3.0]
