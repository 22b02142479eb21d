"""The certificate: what is safe, who is beyond it, and whose it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadgen import certificate
from loadgen.certificate import Certificate, CertifiedStep
from loadgen.selftest import Figures
from targets.exchange import Diagnostics, SafeLoad
from tests.reports import made


def diagnostics(tokens_per_s: float, streams: int) -> Diagnostics:
    measured = {**made.DIAGNOSTICS, "cpu_s": 1.0, "most_tokens_per_s": tokens_per_s, "most_streams": streams}
    return Diagnostics(**measured, clock_steps=())


def figures(**more: Any) -> Figures:
    """Those of a client that measures well, but for what is given."""
    good: dict[str, Any] = {
        "requests": 64, "failed": 0, "ttft": (1e-5, 1e-4), "tpot": (1e-8, 1e-7), "shared": 0.0, "merged": 0.0,
        "cpu": 1e-5, "rate": 5000.0, "core": 0.3, "waited": 0.01, "late": (0.0, 0.0), "grown_mb": 0.0, "facts": {},
    }  # fmt: skip
    return Figures(**{**good, **more})


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
    assert (certificate.verdict(figures(**more), planned=5000) == "safe") is expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "safe"),
        ({"ttft": [1e-5, 1.0], "core": 0.9}, "limit"),
        ({"ttft": [1e-5, 1.0], "core": 0.9, "waited": 0.5}, "limit"),
        ({"ttft": [1e-5, 1.0], "waited": 0.5}, "busy"),
        ({"ttft": [1e-5, 1.0]}, "busy"),  # p50 excellent and p99 terrible, and nobody's core was full
        ({"ttft": [1e-5, 1.0], "rate": 4000.0}, "server"),
        ({"ttft": [1e-5, 1.0], "rate": 4000.0, "waited": 0.5}, "busy"),
    ],
)
def test_why_a_step_is_not_safe(more: dict[str, Any], expected: str) -> None:
    assert certificate.verdict(figures(**more), planned=5000) == expected


def save(*loads: tuple[int, float, str]) -> None:
    steps = tuple(
        CertifiedStep(**vars(figures(rate=rate)), streams=streams, asked=rate, verdict=verdict)
        for streams, rate, verdict in loads
    )
    certificate.save(Certificate("today", certificate.machine(), steps, certificate.allowed(steps)))


def test_the_safe_loads_that_no_other_covers_are_certified() -> None:
    save((64, 5000, "safe"), (1000, 20000, "safe"), (1000, 40000, "busy"), (2000, 15000, "safe"))
    saved = certificate.load()
    assert saved is not None
    assert saved.safe == (SafeLoad(1000, 20000), SafeLoad(2000, 15000))


@pytest.mark.parametrize(
    ("tokens", "streams", "beyond"),
    [
        (20000, 900, False),
        (21000, 1050, False),
        (14000, 2100, False),
        (30000, 900, True),
        (100, 2500, True),
        (20000, 2000, True),  # each was measured, but not together
    ],
)
def test_beyond(tokens: float, streams: int, beyond: bool) -> None:
    save((1000, 20000, "safe"), (2000, 15000, "safe"))
    cited = certificate.cite(diagnostics(tokens, streams))
    assert cited.beyond_certificate == (
        f"a process read {tokens:,} chunks/s of {streams:,} streams; this machine is certified for "
        "20,000 chunks/s of 1,000 streams, or 15,000 chunks/s of 2,000 streams"
        if beyond
        else ""
    )
    assert cited.certificate is not None
    assert cited.certificate.safe == (SafeLoad(1000, 20000), SafeLoad(2000, 15000))


def test_another_form_is_not_cited() -> None:
    save((1000, 20000, "safe"))
    older = json.loads(certificate.path().read_text()) | {"safe": {"streams": 1000, "rate": 20000}}
    certificate.path().write_text(json.dumps(older))
    assert certificate.load() is None


def test_without_a_certificate_nothing_is_claimed() -> None:
    assert certificate.cite(diagnostics(5.0, 1)) == diagnostics(5.0, 1)


def test_another_machines_certificate_is_not_cited() -> None:
    save((1000, 20000, "safe"))
    other = json.loads(certificate.path().read_text())
    other["machine"]["cpu"] = "another"
    certificate.path().write_text(json.dumps(other))
    assert certificate.load() is None


def test_a_broken_certificate_is_none() -> None:
    certificate.path().parent.mkdir(parents=True)
    certificate.path().write_text("{")
    assert certificate.load() is None


def test_no_safe_step_certifies_nothing() -> None:
    save((64, 5000, "limit"))
    assert certificate.cite(diagnostics(10.0, 1)).beyond_certificate
