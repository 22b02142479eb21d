"""Loads that can't be sent, or would be sent in vain, are refused before anything starts; the command's own faults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from loadgen import plan as plans
from loadgen.cli import app as program
from loadgen.options import Load
from loadgen.plan import LoadStep
from loadgen.replays import numbered
from targets.target import Target
from traces.errors import InputError

from .running import trace

BAD: list[tuple[dict[str, Any], str]] = [
    ({"duration": float("inf")}, "--duration: "),
    ({"warmup": float("nan")}, "--warmup: "),
    ({"warmup": 100.0}, "the trace ends at 0.18 s, before the warm-up does (100 s)"),
    ({"retries": -1}, "--retries: "),
    ({"seed": -1}, "--seed: "),
    ({"speedup": 0.0}, "--speedup: "),
    ({"request_count": 0}, "--request-count: "),
    ({"max_context": 0}, "--max-context: "),
    ({"request_rate": 1e12}, "--request-rate: "),
    ({"trace": "azure-cnv"}, "azure-conv"),
    ({"trace": "garbage.parquet"}, "not a trace of a known format"),
    ({"trace": "huge.csv"}, "huge.csv: request 1 has a prompt of 2,000,000,000 tokens (--max-context"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_a_load_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    trace(tmp_path / "t.csv", 10)
    (tmp_path / "huge.csv").write_text("due_s,prompt_tokens,output_tokens\n0,1,1\n1,2000000000,1\n")
    (tmp_path / "garbage.parquet").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(InputError) as refused:
        Load(**{name: given[name] for name in given if name != "trace"}).requests(given.get("trace", "t.csv"))
    assert message in str(refused.value)


def test_a_huge_prompt_may_be_cut_and_a_window_may_be_short(tmp_path: Path) -> None:
    path = trace(tmp_path / "t.csv", 10)
    (tmp_path / "huge.csv").write_text("due_s,prompt_tokens,output_tokens\n0,1,1\n1,2000000000,1\n")
    assert Load(max_context=4096).requests(str(tmp_path / "huge.csv")).column("prompt_tokens").max() == 4095
    assert len(Load(warmup=0.18).requests(str(path))) == 10


def test_a_warm_up_that_is_to_be_found_is_sent_in_addition() -> None:
    load = Load(warmup="auto", duration=60.0)
    assert (load.seconds, load.warmup_s, load.window_s) == (80, 0, 80)
    assert load.duration_in(80.0) == 60 and Load(warmup=5.0).duration_in(80.0) == 75
    with pytest.raises(InputError, match="warmup: "):
        Load(warmup="soon")  # type: ignore[arg-type]


def test_a_folder_that_cant_be_made() -> None:
    with pytest.raises(InputError, match="can't be made"):
        numbered(Path("/proc/x"))


def test_a_plan_is_cut(tmp_path: Path) -> None:
    load = Load(warmup=0.05)
    sent = load.requests(str(trace(tmp_path / "t.csv", 10)))
    one = LoadStep("replay", load, sent).step(plans.step_file(0), [Target("a", "http://a", "m")])
    plan = plans.Plan("p", (one,))
    assert plans.cut(plan, 0.15).steps[0].end_ns == 150_000_000
    with pytest.raises(InputError, match="before the warm-up"):
        plans.cut(plan, 0.05)
    with pytest.raises(InputError, match="--duration"):
        plans.cut(plans.Plan("p", (one, one)), 5.0)


def test_a_fault_of_our_own_is_one_line_and_no_failed_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "check_rooms", lambda: 1 // 0)
    monkeypatch.setattr(sys, "argv", ["phaseload"])
    for debug in ("", "1"):
        monkeypatch.setenv("PHASELOAD_DEBUG", debug)
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert ended.value.code == 3
        said = capsys.readouterr().err
        assert "ZeroDivisionError" in said
        assert ("Traceback" in said) == bool(debug)
        assert debug or ("please report" in said and len(said.splitlines()) == 1)


def test_ctrl_c_before_a_run_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "version", interrupted)
    monkeypatch.setattr(sys, "argv", ["phaseload", "--version"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 3
