"""`phaseload certify`: what it steps through, when it stops, what it writes; and one real measurement."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from loadgen import certificate, selftest
from loadgen.certificate import STEPS
from loadgen.cli.runs import certify
from loadgen.selftest import ClientLoad, Figures

from .test_certificate import figures


@pytest.fixture
def run(tmp_path: Any, monkeypatch: Any) -> Any:
    """Runs the command on a machine that is safe below `limit` chunks a second, and above it has its core full; the
    measurements whose numbers are in `busy` fail because others had it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def command(limit: float, *arguments: str, busy: Container[int] = ()) -> tuple[int, str, list[Any]]:
        measured: list[Any] = []

        def measure(load: ClientLoad) -> Figures:
            stalled = len(measured) in busy
            measured.append(load)
            rate = load.streams * load.rate
            late = 0.5 if rate > limit or stalled else 1e-5
            return figures(
                ttft=(late / 9, late), tpot=(late / 900, late / 90), rate=rate, core=0.9 if rate > limit else 0.3,
                waited=0.4 if stalled else 0.0,
            )  # fmt: skip

        monkeypatch.setattr(selftest, "measure", measure)
        app = typer.Typer()
        app.command()(certify)
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.output, measured

    return command


def test_it_stops_after_two_unsafe_steps(run: Any) -> None:
    code, output, measured = run(30_000)
    assert code == 0
    assert len(measured) == 3 + 2 + 2, "each of the two was tried twice"
    assert "one process measures truly 20,000 chunks/s of 1,000 streams" in output
    assert "limit: the client's core is full" in output and "busy" not in output
    saved = certificate.load()
    assert saved is not None
    assert [step.verdict for step in saved.steps] == ["safe"] * 3 + ["limit"] * 2


def test_a_step_that_failed_is_tried_again(run: Any) -> None:
    code, output, measured = run(1e9, "--quick", busy={1})
    assert (code, len(measured)) == (0, 4)
    assert "busy" not in output and "40,000 chunks/s of 1,000 streams" in output


def test_a_busy_machine_is_no_limit(run: Any) -> None:
    code, output, _ = run(1e9, "--quick", busy=range(2, 9))
    assert code == 0
    assert "busy: others had the machine" in output and "an idle machine may be safe for more" in output
    assert "limit" not in output


def test_a_busy_while_does_not_end_it(run: Any) -> None:
    _, output, measured = run(1e9, busy=range(2, 6))
    assert len(measured) == len(STEPS) + 2
    assert "120,000 chunks/s of 2,000 streams" in output and "an idle machine" not in output


def test_too_busy_for_the_first_step_certifies_nothing(run: Any) -> None:
    code, output, _ = run(1e9, "--quick", busy={0, 1})
    assert code == 1
    assert "too busy even for the first step" in output
    assert not certificate.path().exists()


def test_at_eighty_columns_no_head_is_cut(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, output, _ = run(30_000)
    assert "…" not in output
    assert all(len(line) <= 80 for line in output.partition("limit:")[0].splitlines())
    assert output.count("TTFT") == 2 and "chunks/s" in output


def test_a_fast_machine_goes_through_all_steps(run: Any) -> None:
    code, _, measured = run(1e9, "--json")
    assert (code, measured) == (0, STEPS)


def test_json_is_the_certificate(run: Any) -> None:
    _, output, _ = run(1e9, "--json", "--quick")
    assert json.loads(output)["safe"] == [{"streams": 1000, "rate": 40_000}]


def test_where_nothing_is_safe_nothing_is_written(run: Any) -> None:
    code, output, measured = run(10)
    assert (code, len(measured)) == (1, 4)
    assert "no load was safe: nothing is certified" in output
    assert not certificate.path().exists()


def test_a_real_measurement() -> None:
    measured = selftest.measure(ClientLoad(streams=4, rate=50, tokens=10, rounds=2, ramp_s=0.1))
    assert (measured.requests, measured.failed) == (8, 0)
    assert 0 < measured.ttft[0] < 0.05
    assert 0 < measured.cpu < 0.01
    assert 0 < measured.core < 1 and 0 <= measured.waited < 1
    assert 20 <= measured.facts["most_tokens_per_s"] <= 80, "the run took less than a second"
    assert 0 < measured.facts["busiest_core"] < 1 and 0 <= measured.facts["waited_s"] < measured.facts["wall_s"]
    assert measured.facts["time_source"] == "kernel"
    assert measured.facts["reads_fast"] > 0
