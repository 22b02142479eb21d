"""The certificate: what is safe, who is beyond it, and whose it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadgen import certificate

GOOD: dict[str, Any] = {"failed": 0, "ttft": [1e-5, 1e-4], "tpot": [1e-8, 1e-7], "shared": 0.0, "rate": 5000.0}


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"failed": 1}, False),
        ({"ttft": [1e-5, 0.002]}, False),
        ({"tpot": [1e-8, 2e-5]}, False),
        ({"shared": 0.02}, False),
    ],
)
def test_what_is_safe(more: dict[str, Any], expected: bool) -> None:
    assert certificate.safe(GOOD | more) is expected


def save(*steps: tuple[int, float, bool]) -> None:
    certificate.save([{**GOOD, "streams": n, "rate": rate, "safe": safe} for n, rate, safe in steps], "2026-11-21")


def test_the_highest_safe_step_is_what_is_certified() -> None:
    save((64, 5000, True), (1000, 20000, True), (1000, 40000, False))
    found = certificate.load()
    assert found is not None and found["safe"] == {"streams": 1000, "rate": 20000}


@pytest.mark.parametrize(
    ("reads", "streams", "says"),
    [(20000, 900, ""), (21000, 1050, ""), (30000, 900, "30,000 chunks/s"), (100, 1500, "1,500 streams")],
)
def test_beyond(reads: float, streams: int, says: str) -> None:
    save((1000, 20000, True))
    cited = certificate.cite({"most_reads_per_s": reads, "most_streams": streams})
    assert says in cited["beyond_certificate"]
    assert bool(cited["beyond_certificate"]) is bool(says)
    assert cited["certificate"] == {"created": "2026-11-21", "safe": {"streams": 1000, "rate": 20000}}


def test_without_a_certificate_nothing_is_claimed() -> None:
    assert certificate.cite({"reads": 1}) == {"reads": 1}


def test_another_machines_certificate_is_not_cited() -> None:
    save((1000, 20000, True))
    other = json.loads(certificate.path().read_text())
    other["machine"]["cpu"] = "another"
    certificate.path().write_text(json.dumps(other))
    assert certificate.load() is None


def test_a_broken_certificate_is_none() -> None:
    certificate.path().parent.mkdir(parents=True)
    certificate.path().write_text("{")
    assert certificate.load() is None


def test_no_safe_step_certifies_nothing() -> None:
    save((64, 5000, False))
    assert certificate.cite({"most_reads_per_s": 10, "most_streams": 1})["beyond_certificate"]
