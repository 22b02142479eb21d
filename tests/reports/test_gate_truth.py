"""Gates on simulated endpoints of known truth, in virtual time: which verdict at which sample size and limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from reports.analysis.gate_grammar import parse
from reports.analysis.gates import Decision, Verdict, decide
from reports.analysis.samples import Sample, pooled, sample
from reports.store import durations
from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.request import NS_PER_S
from traces.transforms import cap_context, clip, pace
from traces.workload import synthesise

WARMUP_S, LONGEST_S, SEEDS = 60, 300, 6
RATES = {"h100": 5.0, "groqrack": 0.5}  # requests/s at about half of what they carry
PASS, FAIL, NONE = Decision.PASS, Decision.FAIL, Decision.NO_VERDICT


@lru_cache
def run(profile: str, seed: int, times: float, seconds: int) -> Sample:
    """One round's window; the load is so many times the endpoint's rate."""
    rate, whole = RATES[profile] * times, WARMUP_S + seconds
    trace = cap_context(synthesise("azure-conv", rate=rate, duration=whole, seed=seed), 4096)
    trace = clip(pace(trace, rate, seed=seed), 0, whole)
    exchanges = simulate(build(profile, model="llama2-7b"), trace, warmup=WARMUP_S * NS_PER_S)
    rows = durations.of_exchanges(exchanges, durations.SOURCES)
    return sample(profile, f"{times:g}x", rows, (WARMUP_S * NS_PER_S, whole * NS_PER_S), {})


def rounds(profile: str, count: int, times: float = 1.0, seconds: int = LONGEST_S) -> Sample:
    return pooled([run(profile, seed, times, seconds) for seed in range(count)])


@lru_cache
def truth(profile: str, q: float) -> float:
    """Of all seeds together, s."""
    return float(np.quantile(rounds(profile, SEEDS).values["ttft"], q))


def asked(samples: Mapping[tuple[str, str], Sample], profile: str, q: float, beside: float) -> Verdict:
    limit = truth(profile, q) * beside
    (verdict,) = decide([parse(f"@1x: ttft p{100 * q:g} < {limit:.9f}s")], samples)
    return verdict


@pytest.mark.parametrize(
    ("profile", "q", "beside", "decisions"),  # of 20 s, of 300 s, of 3 rounds, of 5, of 5 that show headroom
    [
        ("h100", 0.5, 0.5, (FAIL, FAIL, FAIL, FAIL, FAIL)),
        ("h100", 0.5, 0.8, (NONE, FAIL, FAIL, FAIL, FAIL)),
        ("h100", 0.5, 1.0, (NONE, NONE, NONE, NONE, NONE)),
        ("h100", 0.5, 2.0, (PASS, PASS, PASS, PASS, PASS)),
        ("h100", 0.9, 2.0, (PASS, PASS, NONE, NONE, PASS)),
        ("h100", 0.99, 0.5, (NONE, FAIL, FAIL, FAIL, FAIL)),
        ("h100", 0.99, 1.0, (NONE, NONE, NONE, NONE, NONE)),
        ("h100", 0.99, 2.0, (NONE, PASS, NONE, NONE, PASS)),
        ("groqrack", 0.5, 0.3, (NONE, FAIL, FAIL, FAIL, FAIL)),
        ("groqrack", 0.5, 1.0, (NONE, NONE, NONE, NONE, NONE)),
        ("groqrack", 0.5, 3.0, (NONE, PASS, PASS, PASS, PASS)),
        ("groqrack", 0.9, 3.0, (NONE, PASS, NONE, NONE, PASS)),
        ("groqrack", 0.99, 1.0, (NONE, NONE, NONE, NONE, NONE)),
    ],
)
def test_truth_table(profile: str, q: float, beside: float, decisions: tuple[Decision, ...]) -> None:
    key = (profile, "1x")
    steeper = {(profile, "1.5x"): replace(rounds(profile, 5, 1.5), factor=1.5)}
    samples = [
        {key: run(profile, 3, 1.0, 20)}, {key: run(profile, 0, 1.0, LONGEST_S)}, {key: rounds(profile, 3)},
        {key: rounds(profile, 5)}, {key: rounds(profile, 5)} | steeper,
    ]  # fmt: skip
    assert tuple(asked(each, profile, q, beside).decision for each in samples) == decisions


def test_what_is_overloaded_may_fail_and_never_passes() -> None:
    key = ("groqrack", "1x")
    overloaded = {key: run("groqrack", 3, 6.0, LONGEST_S)}
    assert overloaded[key].steadiness.overloaded
    overloaded = {key: replace(overloaded[key], step="1x")}
    failed, none = (asked(overloaded, "groqrack", 0.5, beside) for beside in (1.0, 1e4))
    assert failed.decision is FAIL and none.decision is NONE
    assert "overloaded: its backlog grew from second" in failed.note and "overloaded" in none.note


def test_notes_say_what_is_missing() -> None:
    key = ("h100", "1x")
    window, series = {key: run("h100", 0, 1.0, LONGEST_S)}, {key: rounds("h100", 5)}
    assert asked(window, "h100", 0.99, 2.0).note == "inside this run"
    assert asked(series, "h100", 0.99, 2.0).note == "no headroom shown: no step at 1.5 times this load"
    both = asked(series, "h100", 0.99, 1.0).note  # further rounds alone would pass nothing
    assert both.startswith("worth ") and both.endswith("; no headroom shown: no step at 1.5 times this load")
    near = asked({key: run("h100", 3, 1.0, 20)}, "h100", 0.5, 0.8)
    assert near.more_s and near.more_s > 20 and "run about" in near.note
