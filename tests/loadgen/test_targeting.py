"""Targets and limits as the command line names them; the live lines."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fastdigest import TDigest

from loadgen import preflight, secrets
from loadgen.cli import app as program
from loadgen.options import TargetOptions
from loadgen.plan import Arm, Plan, Step
from loadgen.run import progress
from loadgen.run.messages import LaneProgress
from targets.client import http_client
from targets.target import TIMEOUTS, Limits, Target
from traces.errors import InputError


def plan(**arm: Any) -> Plan:
    return Plan("p", (Step("base", (Arm(Target("gpu", "http://h"), "plan/0.arrow", 5000, **arm),), "5/s"),))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25)])
def test_times(text: str, seconds: float) -> None:
    assert preflight.seconds(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "ten", "5 parsecs", "-3s"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--x"):
        preflight.seconds(text, "--x")


def test_several_targets_and_their_common_options(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('[cpu]\nurl = "http://c:1"\nmodel = "m"\n')
    options = TargetOptions("m", "completions", header=["X-A: ${B}"], extra_body='{"k": 1}')
    specs = options.targets(["gpu=http://g:1/v1", "groq=https://q"], tmp_path / "t.toml")
    assert [spec.name for spec in specs] == ["cpu", "gpu", "groq"]
    assert (specs[1].headers, specs[1].extra_body, specs[1].endpoint_type) == (
        (("X-A", "${B}"),),
        {"k": 1},
        "completions",
    )


def test_time_limits_are_options_of_every_command_that_sends() -> None:
    group = typer.main.get_command(program.program())
    for name in ("replay", "bakeoff", "capacity", "record"):
        params = {param.name: param.default for param in group.commands[name].params}  # type: ignore[attr-defined]
        assert [params[key] for key in TIMEOUTS] == list(astuple(Limits()))
    options = TargetOptions(connect_timeout=1.5, first_token_timeout=2, silence_timeout=3, request_timeout=4)
    made = options.target("http://g:1")
    assert astuple(made.limits) == (1.5, 2, 3, 4)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_time_limits_that_are_none(seconds: float) -> None:
    with pytest.raises(InputError, match="--silence-timeout"):
        TargetOptions(silence_timeout=seconds)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["-H", "Authorization: Bearer sk-1"], ["-H", "Authorization: ***"]),
        (["-Hx-api-key:sk-1"], ["-Hx-api-key: ***"]),
        (["--header=Cookie: a=b"], ["--header=Cookie: ***"]),
        (["--header", "X-Own: sk-abc"], ["--header", "X-Own: ***"]),
        (["-H", "X-Team: a", "--url", "http://key:1"], ["-H", "X-Team: a", "--url", "http://key:1"]),
        (["-H", "Authorization: Bearer ${KEY}"], ["-H", "Authorization: Bearer ${KEY}"]),
        (['--extra-body={"a": {"api-key": "k"}}'], ["--extra-body=***"]),
        (["--extra-body", '{"max_tokens": 3, "stop": ["x"]}'], ["--extra-body", '{"max_tokens": 3, "stop": ["x"]}']),
        (["--target", "key=http://h:1"], ["--target", "key=http://h:1"]),
    ],
)
def test_the_command_line_is_kept_without_secrets(given: list[str], kept: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["phaseload", *given])
    assert secrets.argv() == ["phaseload", *kept]


def test_a_literal_secret_moves_into_the_environment(monkeypatch: Any) -> None:
    for number in (1, 2, 3):
        monkeypatch.setenv(f"PHASELOAD_HEADER_{number}", "")  # restored afterwards
        monkeypatch.delenv(f"PHASELOAD_HEADER_{number}")
    given = ["Authorization: Bearer sk-1", "X-Key: sk-2", "X-Again: Bearer sk-1", "X-Team: a", "X-Token: ${T}"]
    headers = dict(TargetOptions(header=given).target("http://h").headers)
    assert headers == {
        "Authorization": "${PHASELOAD_HEADER_1}", "X-Key": "${PHASELOAD_HEADER_2}", "X-Again": "${PHASELOAD_HEADER_1}",
        "X-Team": "a", "X-Token": "${T}",
    }  # fmt: skip
    assert os.environ["PHASELOAD_HEADER_1"] == "Bearer sk-1"
    with pytest.raises(InputError, match="Authorization"):
        Target("x", "http://h", headers=(("Authorization", "Bearer sk-1"),))


@pytest.mark.parametrize("url", ["g:1", "ftp://g", "http://", "http://g:0", "http://u:p@g", "unix://s", ""])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="--url"):
        TargetOptions().target(url)


def test_a_late_server_is_waited_for() -> None:
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        spec = Target("late", f"http://127.0.0.1:{late.getsockname()[1]}")
        with pytest.raises(InputError, match="nobody answers"):
            preflight.wait_ready([spec], None)
        threading.Timer(0.7, late.listen).start()
        began = time.monotonic()
        preflight.wait_ready([spec], "20s")
        assert 0.5 < time.monotonic() - began < 20


def test_of_two_legs_the_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        url, gone = f"http://127.0.0.1:{there.getsockname()[1]}", "http://127.0.0.1:9"
        spec = Target("legs", url, prefill=(url, gone), decode=(url,), protocol="nixl")
        with pytest.raises(InputError, match=f"^legs: nobody answers at {gone}: Connection refused"):
            preflight.wait_ready([spec], None)


def test_too_few_open_files_are_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(http_client, "raise_open_files", lambda: 1024)
    preflight.check_open_files(plan(concurrency=500), 1)
    preflight.check_open_files(plan(concurrency=3000), 4)
    assert capsys.readouterr().err == ""
    preflight.check_open_files(plan(concurrency=3000), 1)
    assert "limited to 1024" in capsys.readouterr().err


def test_live_lines() -> None:
    some = LaneProgress(3, 2, 1, 1, TDigest.from_values([0.03]).to_dict(), TDigest(50).to_dict())
    others = LaneProgress(4, 0, 4, 0, TDigest.from_values([0.01, 0.02]).to_dict(), TDigest(50).to_dict())
    workers = {
        "a": SimpleNamespace(number=1, lost="its process is gone", lanes={"gpu": some}),
        "b": SimpleNamespace(number=2, lost="", lanes={"gpu": others}),
    }
    coordinator: Any = SimpleNamespace(plan=plan(), step=0, workers=workers)
    assert progress.lines(coordinator) == [
        "p: base, 5/s",
        "target         sent  in flight    done  failed    TTFT p50    TPOT p50",
        "gpu          7/5000          2       5       1     20.0 ms           -",
        "worker 1 is lost: its process is gone; the run is invalid",
    ]
    coordinator.step = -1
    assert progress.lines(coordinator) == ["p: preparing prompts for 2 worker(s)"]
