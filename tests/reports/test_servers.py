"""The servers' own metrics beside the client's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.analysis import phases
from reports.store import run_folder
from reports.store.run_json import TargetFacts
from targets.telemetry import Reading
from tests.reports import made
from tests.reports.test_html import Seen

URL, OTHER = "http://127.0.0.1:8000/metrics", "http://127.0.0.1:9/metrics"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made.run(tmp_path, (made.GPU,), seconds=20)
    rows = [{"at": 0, "url": URL, "when": "before", "ttft": [10.0, 100]}]
    rows += [{"at": n * made.S, "url": URL, "when": "during", "running": n, "waiting": 0, "kv_use": n / 40}
             for n in range(1, 21)]  # fmt: skip
    rows += [{"at": 21 * made.S, "url": URL, "when": "after", "ttft": [16.0, 300], "queue": [1.0, 200]}]
    rows += [{"at": 5, "url": OTHER, "when": "during", "error": "<b>refused</b>"}] * 3
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"at": 99, "url": "cut sho'
    (tmp_path / "metrics.jsonl").write_text(text)
    return tmp_path


def test_the_account(folder: Path) -> None:
    run = run_folder.open_run(folder)
    ttft, queue = phases.phase_means(run, phases.readings(folder))
    assert (ttft.target, ttft.phase, ttft.n) == ("h100", "ttft", 200)
    assert ttft.mean == pytest.approx(0.03)
    assert ttft.client == pytest.approx(np.nanmean(run.rows["ttft"]))
    assert ttft.difference == pytest.approx(ttft.client - 0.03)
    assert (queue.mean, queue.client, queue.difference) == (pytest.approx(0.005), None, None)


def test_the_timeline_and_the_page(folder: Path) -> None:
    (gauges,) = phases.series(phases.readings(folder)).values()
    assert list(gauges) == list(phases.GAUGES)
    assert gauges["kv_use"][1].max() == 0.5
    seen = Seen(made.page([folder]).read_text())
    assert ("figure", {"id": "run0-servers"}) in seen.tags
    assert f"3 readings of {OTHER} failed: <b>refused</b>" in seen.text


def test_round_trips(folder: Path) -> None:
    far = [Reading(second, "https://far/v1", when, round_trip=time)
           for second, (when, time) in enumerate([("before", 0.01), ("during", 0.02), ("during", 0.04)])]  # fmt: skip
    run = run_folder.open_run(folder)
    (target,) = run.facts.targets
    run.facts = replace(run.facts, targets=(replace(target, url="https://far/v1/"),))
    (row,) = phases.round_trips(run, far)
    assert row == phases.RoundTrip("https://far/v1", "h100", 0.01, pytest.approx(0.03), None)


def test_whose_a_url_is() -> None:
    targets = [
        TargetFacts(name="a", url="http://a:1", endpoint_type="chat", metrics=("http://m/metrics",)),
        TargetFacts(name="b", url="http://a:10/", endpoint_type="chat"),
    ]
    urls = ("http://m/metrics", "http://a:1/metrics", "http://a:10/metrics", "http://c/metrics")
    assert [phases.owner(targets, url) for url in urls] == ["a", "a", "b", ""]


def test_without_metrics_nothing_is_said(tmp_path: Path) -> None:
    assert phases.readings(tmp_path) == []
