"""Targets and limits as the command line names them; the live lines."""

from __future__ import annotations

import os
import random
import socket
import string
import threading
import time
import uuid
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fastdigest import TDigest

from loadgen import preflight
from loadgen.cli import app as program
from loadgen.options import TargetOptions
from loadgen.plan import Arm, Plan, Step
from loadgen.processes import Workers
from loadgen.run import progress
from loadgen.run.messages import LaneProgress
from targets import secrets
from targets.client import http_client
from targets.target import TIMEOUTS, Limits, Target
from traces.errors import InputError, seconds


def plan(**arm: Any) -> Plan:
    return Plan("p", (Step("base", (Arm(Target("gpu", "http://h"), "plan/0.arrow", 5000, **arm),), "5/s"),))


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected
    assert seconds(90.0) == 90 and seconds("800", "ms") == seconds("0.8 s", "ms") == 0.8


@pytest.mark.parametrize("text", ["ten", "5 parsecs", "m", "3s3s"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 90s"):
        seconds(text)
    with pytest.raises(InputError, match="--wait-ready: expected a time"):
        preflight.wait_ready([], text)


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
        (["-H", "X-Team: a", "--url", "http://key:1"], ["-H", "X-Team: ***", "--url", "http://key:1"]),
        (["--url", "http://u:p@h/v1/a8Fk29Lx0Qm4Vb7Nz3?k=v"], ["--url", "http://***@h/v1/***?***"]),
        (["--url=https://x8f2k3l9q0z1a2b3.host/v1"], ["--url=https://x8f2k3l9q0z1a2b3.host/v1"]),
        (["--extra-body", '{"a": "Zq7R2mXw9TbL4kPv8"}'], ["--extra-body", '{"a": "***"}']),
        (["--api-key=sk-proj-abcd", "-m", "Llama-3.1-8B"], ["--api-key=***", "-m", "Llama-3.1-8B"]),
        (["-H", "Authorization: Bearer ${KEY}"], ["-H", "Authorization: Bearer ${KEY}"]),
        (['--extra-body={"a": {"api-key": "k"}}'], ["--extra-body=***"]),
        (["--extra-body", '{"max_tokens": 3, "stop": ["x"]}'], ["--extra-body", '{"max_tokens": 3, "stop": ["x"]}']),
        (["--target", "key=http://h:1"], ["--target", "key=http://h:1"]),
        (["--url", "http://h/tenant/kL3-mN4-pQ5-rS6/v1"], ["--url", "http://h/tenant/***/v1"]),
        (["--ca-file", "/x/gsk_abcdefghijklmnop1234"], ["--ca-file", "/x/***"]),
    ],
)
def test_the_command_line_is_kept_without_secrets(given: list[str], kept: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["phaseload", *given])
    assert secrets.argv() == ["phaseload", *kept]


def test_a_literal_header_is_held_and_not_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(secrets, "HELD", {})
    given = ["Authorization: Bearer sk-1", "X-Key: sk-2", "X-Team: a", "X-Token: ${T}"]
    headers = dict(TargetOptions(header=given).target("http://h").headers)
    assert headers == {
        "Authorization": "${PHASELOAD_SECRET_AUTHORIZATION}", "X-Key": "${PHASELOAD_SECRET_X_KEY}",
        "X-Team": "${PHASELOAD_SECRET_X_TEAM}", "X-Token": "${T}",
    }  # fmt: skip
    assert secrets.HELD["PHASELOAD_SECRET_AUTHORIZATION"] == "Bearer sk-1" and not os.environ.keys() & secrets.HELD
    assert TargetOptions(header=["X-Key: 3"]).target("http://h").headers == (("X-Key", "${PHASELOAD_SECRET_X_KEY_2}"),)
    with pytest.raises(InputError, match="Authorization"):
        Target("x", "http://h", headers=(("Authorization", "Bearer sk-1"),))


def test_a_key_in_a_path_or_a_body_is_held_and_put_back(monkeypatch: Any) -> None:
    monkeypatch.setattr(secrets, "HELD", {})
    url, body = "https://h-1a2b3c4d5e6f7a8b.x/v1/a8Fk29Lx0Qm4Vb7Nz3/chat", {"a": [{"b": "Bearer gsk_abcdef"}], "k": 3}
    target = Target("x", url, metrics=(f"{url}/metrics",), headers=(("X-Team", "a"),), extra_body=body)
    kept = target.sheltered()
    assert kept.url == "https://h-1a2b3c4d5e6f7a8b.x/v1/${PHASELOAD_SECRET_KEY_2}/chat"
    assert (kept.metrics, kept.extra_body["k"]) == ((f"{kept.url}/metrics",), 3)
    assert kept.extra_body["a"] == [{"b": "Bearer ${PHASELOAD_SECRET_KEY}"}]
    assert (kept.sheltered(), kept.opened().url, kept.opened().extra_body) == (kept, url, body)
    secrets.HELD.clear()
    with pytest.raises(InputError, match="x: the environment has no PHASELOAD_SECRET_KEY"):
        kept.opened()


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "gpt-4o-mini-2024-07-18", "HF_TOKEN",
        "runs/azure-conv-20261121-182900", "AzureLLMInferenceTrace_conv_1week.csv", "mixtral-8x22b-instruct-v0.1-fp8",
        "accounts/fireworks/models/llama-v3p1-405b-instruct", "gpt-oss-120b", "Qwen/Qwen3-30B-A3B-FP8",
        "/openai/v1/chat/completions", "/v1beta/models", "2024-07-18T10:20:30Z", "TheBloke/CodeLlama-7B-GPTQ",
        "task-force-disk-assessment", "include_usage",
    ],
)  # fmt: skip
def test_a_name_is_no_key(name: str) -> None:
    assert not secrets.suspicious(name)


APART = ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aB3-dE6-gH9-jK2", "aB3.dE6.gH9.jK2", "x9K2p4Lm7Q")


def test_what_chance_makes_is_a_key() -> None:
    draw = random.Random(1)
    keys = ["".join(draw.choices(string.ascii_letters + string.digits, k=32)) for _ in range(200)]
    keys += [f"{draw.getrandbits(128):032x}" for _ in range(200)] + [str(uuid.UUID(int=draw.getrandbits(128)))]
    assert [key for key in keys if not secrets.suspicious(key)] == []
    for key in ("sk-abcdef", "hf_abcdef", "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.e30.abc", *APART):
        assert secrets.suspicious(key)


@pytest.mark.parametrize("key", ["sk-proj-1234", "gsk_A8Fk29Lx0Qm4Vb7N", "a8Fk29Lx0Qm4Vb7Nz3"])
def test_a_key_in_the_place_of_its_variable_is_not_echoed(key: str) -> None:
    with pytest.raises(InputError, match="--api-key-env: expected the name of a variable") as refused:
        TargetOptions(api_key_env=key).target("http://h")
    assert key not in str(refused.value)
    with pytest.raises(InputError, match=r"http://h/v1\?\*\*\*'") as refused:
        TargetOptions().target(f"http://h/v1?key={key}")
    assert key not in str(refused.value)


@pytest.mark.parametrize("name", ["quietwinterorchard", "AKIAIOSFODNN7EXAMPLE"])
def test_a_name_that_is_no_variables_is_not_echoed(name: str) -> None:
    with pytest.raises(InputError, match="the environment has no such variable") as refused:
        Workers(token_env=name)
    assert name not in str(refused.value)


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
