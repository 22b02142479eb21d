"""`phaseload certify`: what it steps through, when it stops, what it writes; and one real measurement."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from loadgen import certificate, selftest
from loadgen.commands.certify import STEPS, certify


@pytest.fixture
def run(tmp_path: Any, monkeypatch: Any) -> Any:
    """Runs the command on a machine that is safe below `limit` chunks a second."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def command(limit: float, *arguments: str) -> tuple[int, str, list[Any]]:
        measured: list[Any] = []

        def measure(load: Any) -> dict[str, Any]:
            measured.append(load)
            rate = load["streams"] * load["rate"]
            late = 0.5 if rate > limit else 1e-5
            return {
                "failed": 0, "ttft": [late / 9, late], "tpot": [late / 900, late / 90], "shared": 0.0, "rate": rate,
                "cpu": 1e-5, "late": [0.0, 0.001],
            }  # fmt: skip

        monkeypatch.setattr(selftest, "measure", measure)
        app = typer.Typer()
        app.command()(certify)
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.output, measured

    return command


def test_it_stops_after_two_unsafe_steps(run: Any) -> None:
    code, output, measured = run(30_000)
    assert code == 0
    assert len(measured) == 5
    assert "one process measures 20,000 chunks/s and 1,000 streams truly" in output
    found = certificate.load()
    assert found is not None
    assert [step["safe"] for step in found["steps"]] == [True, True, True, False, False]


def test_a_fast_machine_goes_through_all_steps(run: Any) -> None:
    code, _, measured = run(1e9, "--json")
    assert (code, measured) == (0, STEPS)


def test_json_is_the_certificate(run: Any) -> None:
    _, output, _ = run(1e9, "--json", "--quick")
    assert json.loads(output)["safe"] == {"streams": 1000, "rate": 40_000}


def test_where_nothing_is_safe_nothing_is_written(run: Any) -> None:
    code, output, measured = run(10)
    assert (code, len(measured)) == (1, 2)
    assert "Nothing is certified" in output
    assert not certificate.path().exists()


def test_a_real_measurement() -> None:
    figures = selftest.measure({"streams": 4, "rate": 50, "tokens": 10, "rounds": 2, "ramp_s": 0.1})
    assert (figures["requests"], figures["failed"]) == (8, 0)
    assert 0 < figures["ttft"][0] < 0.05
    assert 0 < figures["cpu"] < 0.01
    assert figures["facts"]["time_source"] == "kernel"
    assert figures["facts"]["reads_fast"] > 0
