"""valid, suspect, invalid: one table of evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pandas as pd
import pytest

from reports.analysis.validity import Evidence, Status, judge
from reports.store.run_folder import Run
from reports.store.run_json import WorkerFacts, unknown

VALID, SUSPECT, INVALID = Status


def run(damaged: tuple[str, ...] = (), **facts: Any) -> Run:
    return Run(Path(), replace(unknown("r"), **{"ended": "completed"} | facts), pd.DataFrame(), damaged=damaged)


def worker(
    rows: int = 0, lost: str | None = None, clock_offset_s: float | None = None, steps: int = 0,
    core: float | None = None, waited_s: float | None = None,
) -> Any:  # fmt: skip
    diagnostics: Any = SimpleNamespace(clock_steps=range(steps), busiest_core=core, waited_s=waited_s, wall_s=10.0)
    facts = WorkerFacts(
        number=2, pid=1, host="", rows=rows, lost=lost, clock_offset_s=clock_offset_s, diagnostics=diagnostics
    )
    return (facts,)


@pytest.mark.parametrize(
    ("evidence", "facts", "status", "words"),
    [
        ({}, {}, VALID, ""),
        ({"brackets": {"ttft p99": (0.096, 0.1)}}, {}, VALID, ""),
        (
            {"brackets": {"ttft p50": (0.1, 0.1), "ttft p99": (0.094, 0.1)}},
            {},
            SUSPECT,
            "read too late to know ttft p99",
        ),
        ({"brackets": {"tpot p50": (0.079, 0.1)}}, {}, INVALID, "tpot p50: between 79 and 100 ms (21.0% apart"),
        ({"brackets": {"ttft p50": (0.0, 0.0)}}, {}, VALID, ""),
        ({"lateness_p99": 0.010}, {}, VALID, ""),
        ({"lateness_p99": 0.011}, {}, SUSPECT, "lateness p99 11.0 ms, at most 10.0 ms"),
        ({"lateness_p99": 0.021}, {}, INVALID, "left late"),
        ({"lateness_p99": 0.09, "mean_gap": 1.0}, {}, VALID, ""),
        ({"lateness_p99": 0.15, "mean_gap": 1.0}, {}, SUSPECT, "at most 100.0 ms"),
        ({"lateness_p99": 0.21, "mean_gap": 1.0}, {}, INVALID, "left late"),
        ({"unstamped_share": 1.0, "brackets": {"ttft p99": (0.096, 0.1)}}, {}, VALID, ""),
        (
            {"unstamped_share": 1.0, "brackets": {"ttft p50": (0.09, 0.1)}},
            {},
            SUSPECT,
            "reads had no kernel receive time, and came too late to know ttft p50",
        ),
        ({"internal_errors": 3, "counted": 300}, {}, SUSPECT, "3 of 300 requests failed through the client's own"),
        ({"internal_errors": 4, "counted": 300}, {}, INVALID, "4 of 300 requests failed through the client's own"),
        ({"stepped": 4}, {}, SUSPECT, "4 requests were open while the clock was stepped"),
        ({"duplicates": 2}, {}, INVALID, "2 requests were sent twice"),
        ({"lateness_p99": 0.009, "mean_gap": 0.001}, {}, VALID, ""),  # the larger of the two limits
        ({"counted": 0}, {}, INVALID, "no verdict: no request was counted"),
        ({}, {"damaged": ("0-00001.parquet",)}, INVALID, "can't be read, left out: 0-00001.parquet"),
        ({}, {"workers": worker(rows=9)}, INVALID, "9 exchanges that the run recorded"),
        ({}, {"ended": "interrupted"}, SUSPECT, "ended early: interrupted"),
        ({}, {"ended": "interrupted", "missing": {"t": 5}}, SUSPECT, "5 planned requests were not sent"),
        ({}, {"ended": "running"}, INVALID, "never ended"),
        ({}, {"ended": "worker_lost"}, INVALID, "worker lost"),
        ({}, {"workers": worker(lost="killed")}, INVALID, "2 (killed)"),
        ({}, {"missing": {"t": 7}}, INVALID, "7 planned requests were never recorded"),
        ({}, {"workers": worker(steps=1)}, SUSPECT, "clock was stepped"),
        ({}, {"workers": worker(clock_offset_s=-0.02)}, SUSPECT, "clocks differ by 20.0 ms"),
        ({}, {"certificate_exceeded": "60,000 chunks/s is beyond the certificate"}, SUSPECT, "beyond the certificate"),
    ],
)
def test_the_table(evidence: dict[str, Any], facts: dict[str, Any], status: Status, words: str) -> None:
    judged = judge([Evidence("t", "1x", **evidence)], run(**facts))
    assert judged.status is status
    assert words in " | ".join(reason.text for reason in judged.reasons)
    assert bool(judged.reasons) == (status is not VALID)
    written = orjson.loads(orjson.dumps(judged))
    assert written["status"] == str(status)
    assert [reason["text"] for reason in written["reasons"]] == [reason.text for reason in judged.reasons]


def test_the_worst_reason_decides_and_comes_first() -> None:
    judged = judge([Evidence("a", "", lateness_p99=0.015), Evidence("b", "", duplicates=1)], run())
    assert [(reason.status, reason.target) for reason in judged.reasons] == [(INVALID, "b"), (SUSPECT, "a")]
    assert judged.status is INVALID


@pytest.mark.parametrize(
    ("fault", "says", "remedy"),
    [
        (
            "Too many open files: raise it",
            "own fault: Too many open files",
            "raise the limit of open files (ulimit -n)",
        ),
        ("TypeError: 'x' is no y", "own fault: TypeError: 'x' is no y", "report it with run.json"),
    ],
)
def test_a_fault_of_ours_has_the_remedy_that_fits(fault: str, says: str, remedy: str) -> None:
    (reason,) = judge([Evidence("t", "", counted=10, internal_errors=10, fault=fault)], run()).reasons
    assert reason.text.endswith(says)
    assert reason.remedy.startswith(remedy)
    assert ("run.json" in reason.remedy) is ("TypeError" in fault)


def test_the_figures_that_are_affected_are_named() -> None:
    brackets = {"ttft p50": (0.5, 1.0), "ttft p99": (0.9, 1.0), "tpot p50": (0.99, 1.0)}
    (reason,) = judge([Evidence("t", "", brackets)], run()).reasons
    assert reason.affects == "ttft p50, ttft p99"
    assert "--processes" in reason.remedy


@pytest.mark.parametrize(
    ("core", "waited_s", "brackets_say", "their_remedy", "lateness_remedy"),
    [
        (None, None, "read too late to know tpot p50", "more processes (", "more processes ("),  # an earlier version's
        (0.97, 0.2, "read too late to know tpot p50", "more processes (", "more processes ("),
        (0.3, 4.0, "read too late to know tpot p50", "leave it a core", "leave it a core"),
        (0.3, 0.1, "tpot p50 is too fast for this client to tell apart", "processes won't help", "leave it a core"),
    ],
)
def test_a_client_at_its_limit_is_told_from_a_busy_machine_and_a_fast_server(
    core: float | None, waited_s: float | None, brackets_say: str, their_remedy: str, lateness_remedy: str
) -> None:
    evidence = Evidence("t", "", {"tpot p50": (0.00001, 0.00005)}, lateness_p99=0.5)
    brackets, lateness = judge([evidence], run(workers=worker(core=core, waited_s=waited_s))).reasons
    assert brackets_say in brackets.text and their_remedy in brackets.remedy
    assert lateness_remedy in lateness.remedy
    unstamped = replace(evidence, unstamped_share=1.0)
    (reason, _) = judge([unstamped], run(workers=worker(core=core, waited_s=waited_s))).reasons
    assert "Unix sockets" in reason.remedy and their_remedy in reason.remedy
