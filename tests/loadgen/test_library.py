"""The library: runs without a command line, Locust never in the caller's process, what is refused, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import loadgen
from loadgen import Load, SearchTerms, Workers, bakeoff, capacity, replay
from loadgen.options import RunKeywords, RunOptions, TargetOptions, attribute_names, user_options
from targets import secrets
from targets.target import Target
from traces.errors import InputError, RunFailed
from traces.reading import open_trace

from .running import about, endpoint, locust_children, running, trace, until

QUIET: Any = {"probe": False, "report": False}


def test_importing_it_costs_nothing_and_every_name_is_there() -> None:
    probe = (
        "import sys, loadgen; print([m for m in ('numpy', 'rich', 'typer', 'locust', 'gevent') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert "TraceUser" in dir(loadgen)  # which imports Locust, and so isn't for this process, nor for a star
    for name in loadgen.__all__:
        assert getattr(loadgen, name).__name__ == name
    assert "locust" not in sys.modules
    with pytest.raises(AttributeError):
        _ = loadgen.Nothing


@pytest.mark.parametrize("module", ["loadgen.replays", "loadgen.bakeoffs"])
def test_who_only_plans_a_run_imports_no_report(module: str) -> None:
    """The command line plans a run and becomes Locust: pandas and matplotlib would cost it seconds."""
    probe = f"import sys, {module}; print([module for module in ('pandas', 'matplotlib') if module in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_keywords_are_the_run_options() -> None:
    assert set(RunKeywords.__annotations__) == {f.name for f in fields(RunOptions)} - {"json"}


def test_a_replay_returns_the_run(tmp_path: Path) -> None:
    requests = open_trace(str(trace(tmp_path / "t.csv", 20)))
    with endpoint() as server:
        target = Target("here", server.url, "m")
        run = replay(requests, target, Load(speedup=2), out=tmp_path / "r", slo=["ttft p50 < 5s"], probe=False)
    assert len(run.rows) == len(server.prompts) == 20
    assert run.folder == tmp_path / "r"
    assert (tmp_path / "r" / "summary.json").exists() and (tmp_path / "r" / "report.html").exists()
    assert about(tmp_path / "r")["slo"] == ["ttft p50 < 5s"]
    assert "locust" not in sys.modules
    until(lambda: not locust_children())


def test_ctrl_c_ends_the_run_and_gives_what_was_recorded(tmp_path: Path) -> None:
    name = str(trace(tmp_path / "t.csv", 3000))
    with endpoint() as server:
        interrupt = threading.Thread(
            target=lambda: (until(lambda: len(server.prompts) > 20), os.kill(os.getpid(), signal.SIGINT))
        )
        interrupt.start()
        run = replay(name, Target("here", server.url, "m"), out=tmp_path / "r", **QUIET)
        interrupt.join()
    assert about(tmp_path / "r")["ended"] == "interrupted"
    assert 20 <= len(run.rows) < 3000


def test_a_process_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    name = str(trace(tmp_path / "t.csv", 3000))
    with endpoint() as server:
        killer = threading.Thread(
            target=lambda: (until(lambda: len(server.prompts) > 5), [child.kill() for child in locust_children()])
        )
        killer.start()
        with pytest.raises(RunFailed, match=r"ended without a run: .*exit code -9"):
            replay(name, Target("here", server.url, "m"), out=tmp_path / "r", **QUIET)
        killer.join()


def test_a_run_ends_with_its_caller(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 3000)
    with endpoint() as server:
        call = (
            "from loadgen import replay; from targets.target import Target\n"
            f"replay('t.csv', Target('here', '{server.url}', 'm'), out='r', probe=False)"
        )
        with running(cwd=tmp_path, argv=[sys.executable, "-c", call]) as caller:
            until(lambda: len(server.prompts) > 5)
            locust = psutil.Process(caller.pid).children()
            caller.kill()
            assert psutil.wait_procs(locust, timeout=20)[1] == []
    assert about(tmp_path / "r")["ended"] == "interrupted"


def test_what_cant_be_run_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    name = str(trace(tmp_path / "t.csv", 3))
    target = Target("here", "http://127.0.0.1:9", "m")
    with pytest.raises(InputError, match="nobody answers"):
        replay(name, target, **QUIET)
    with pytest.raises(InputError, match="expected"):
        replay(name, target, slo=["ttft p99 is fine"], **QUIET)
    with endpoint() as server, pytest.raises(InputError, match="command line"):
        replay(name, Target("here", server.url), workers=Workers(worker=True), out=tmp_path / "r", **QUIET)


@pytest.mark.parametrize("processes", [None, 2])
def test_a_capacity_search_starts_locust_once(tmp_path: Path, processes: int | None) -> None:
    seen: list[set[int]] = []
    with endpoint(tokens=1) as server:
        found = capacity(
            "azure-conv",
            Target("here", server.url, "m"),
            Load(duration=0.5, warmup=0.1, drain_timeout=5),
            terms=SearchTerms(lowest=40, highest=40, max_step_s=0.5, budget_s=60),
            slo=["errors < 50%"],
            workers=Workers(processes=processes),
            on_step=lambda *_: seen.append({child.pid for child in locust_children()}),
            out=tmp_path / "c",
            **QUIET,
        )
    assert found.low is None or found.low <= 40 / 1.04  # lower, where a busy machine left steps without a verdict
    assert len(seen) == len(found.facts.steps) >= 2
    assert len(seen[0]) == (processes or 0) + 1 if processes else len(seen[0]) == 1
    assert all(each == seen[0] for each in seen)
    folders = [tmp_path / "c" / step.folder for step in found.facts.steps]
    assert all(about(folder)["ended"] == "completed" for folder in folders)
    assert len({about(folder)["salt"] for folder in folders}) == len(folders)


TWO, NAMED = Target(url="http://127.0.0.1:8001", model="m"), Target(name="m", url="http://127.0.0.1:8002")
SPOKEN_TO = Target(url="http://127.0.0.1:9", model="m")


@pytest.mark.parametrize(
    ("call", "mistake"),
    [
        (lambda: bakeoff("azure-conv", [TWO, TWO]), "two targets are called m .*give name="),
        (lambda: bakeoff("azure-conv", [TWO, NAMED]), "two targets are called m .*give name="),
        (lambda: Load(request_count=1.5), "^request_count: expected a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: Load(speedup="2"), "^speedup: expected a number, got '2'"),  # type: ignore[arg-type]
        (lambda: Load(open_loop=1), "^open_loop: expected true or false, got 1"),  # type: ignore[arg-type]
        (lambda: Workers(processes=True), "^processes: expected a whole number, got True"),
        (lambda: Target(url="http://h:1", limits=None), r"limits: expected Limits"),  # type: ignore[arg-type]
        (lambda: replay("azure-conv", SPOKEN_TO, slooo=["x"]), "^slooo: .*did you mean slo?"),  # type: ignore[call-arg]
        (lambda: replay("azure-conv", SPOKEN_TO, slo=5), "^slo: expected a list, got 5"),  # type: ignore[arg-type]
        (lambda: replay(5, SPOKEN_TO), "^5: "),  # type: ignore[arg-type]
        (lambda: replay(Path("no.csv"), SPOKEN_TO), "^no.csv: "),
        (lambda: replay("azure-conv", SPOKEN_TO, slo="nonsense"), "not a gate"),
        (
            lambda: capacity("azure-conv", SPOKEN_TO, terms=SearchTerms(lowest=2, highest=1), slo="errors < 1%"),
            "lowest <= highest",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(call: Callable[[], object], mistake: str) -> None:
    with pytest.raises(InputError, match=mistake):
        call()


def test_a_text_is_a_list_of_one_and_what_is_alike_is_taken() -> None:
    options = RunOptions(slo="ttft p99 < 800ms", goodput="ttft:800 tpot:40", wait_ready=5, prompts=Path("p"))  # type: ignore[arg-type]
    assert (options.slo, options.goodput) == (("ttft p99 < 800ms",), ("ttft:800 tpot:40",))
    assert (options.wait_ready, options.prompts) == (5, "p")
    load = Load(speedup=np.float64(2), request_count=np.int64(3))  # type: ignore[arg-type]
    assert [type(value) for value in (load.speedup, load.request_count)] == [float, int]


@pytest.mark.parametrize("words", ["import *", "import TraceUser, sweep"])
def test_a_sweep_ends_where_locust_may_have_patched_threads(tmp_path: Path, words: str) -> None:
    call = (
        f"from loadgen {words}\nimport sys; print('locust' in sys.modules)\n"
        "load = __import__('loadgen').Load(duration=2)\n"
        "axes = {'speedup': [0.5, 1, 1.5, 2]}\n"
        f"print(len(sweep('azure-conv', {{'a': 'a100'}}, axes, load, out={str(tmp_path / 'r')!r}).points))"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str("TraceUser" in words), "4"], done.stderr


class Base:
    """Stands for TraceUser, without Locust."""


def test_a_user_takes_every_option_of_replay() -> None:
    class Mixin:
        seed = 7

    class Mine(Mixin, Base):
        trace, host, model = "azure-conv", "http://h:1", "m"
        speedup, slo, salt, prompts, out = 2.0, ["ttft p99 < 1s"], "none", "texts.jsonl", "r"
        header, api_key_env, first_token_timeout = ["X-Team: a"], "KEY", 5.0
        extra_body: dict[str, int] = {"top_k": 1}  # noqa: RUF012 - as a Locust file has it
        price_per_hour, labels = 2.5, {"gpu": "h100"}
        weight, _own = 3, 4

        def wait_time(self) -> float:
            return 1.0

    options = user_options(Mine, Base, ["weight", "wait_time", "json"])
    assert (options.load, options.run) == (
        Load(speedup=2.0, seed=7),
        RunOptions(slo=["ttft p99 < 1s"], salt="none", prompts="texts.jsonl", out="r"),
    )
    target = options.target(None)
    headers = (("X-Team", secrets.hold("a", "X-Team")),)
    assert (target.name, target.url, target.model, target.headers) == ("Mine", "http://h:1", "m", headers)
    assert (target.api_key_env, target.limits.first_token_timeout, target.extra_body) == ("KEY", 5.0, {"top_k": 1})
    assert (target.price_per_hour, target.labels) == (2.5, {"gpu": "h100"})


@pytest.mark.parametrize("name", sorted(set().union(*attribute_names())))
def test_every_option_is_an_attribute(name: str) -> None:
    groups = {f.name: f.default for kind in (Load, RunOptions, TargetOptions, Target) for f in fields(kind)}
    user_options(type("Mine", (Base,), {name: groups[name]}), Base, []) if name in groups else None
    assert name in groups


@pytest.mark.parametrize(
    ("name", "value", "mistake"),
    [
        ("duration", "2", "^duration: expected a number, got '2'"),
        ("speedup", "2", "^speedup: expected a number, got '2'"),
        ("slo", 5, "^slo: expected a list, got 5"),
        ("wait_ready", [5], "^wait_ready: expected "),
        ("model", 5, "^model: expected a text, got 5"),
        ("extra_body", 5, "extra_body: expected a table"),
        ("limits", 5, "limits: expected Limits"),
    ],
)
def test_an_attribute_of_a_wrong_type_is_refused(name: str, value: object, mistake: str) -> None:
    with pytest.raises(InputError, match=mistake):
        user_options(type("Mine", (Base,), {"trace": "t", name: value}), Base, []).target("http://h:1")


@pytest.mark.parametrize(("name", "remedy"), [("speed_up", "did you mean speedup?"), ("qqq", "phaseload replay")])
def test_an_attribute_that_nobody_knows_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(InputError, match=f"Mine: no option of a replay: {name}") as refused:
        user_options(type("Mine", (Base,), {name: 1}), Base, ["weight"])
    assert remedy in str(refused.value)
