"""Synthesis: seeded, the wanted rate, the wanted distributions."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from traces import distributions
from traces.distributions import Lengths, Process, Rhythm, Wander, arrivals
from traces.errors import InputError
from traces.workload import WORKLOADS, load, synthesise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_bundled_workload_gives_a_sound_trace(name):
    trace = synthesise(name, duration=200, rate=5)
    due = trace.column("due")
    assert (np.diff(due) >= 0).all() and due[0] >= 0 and trace.span < 200e9
    assert trace.column("prompt_tokens").min() >= 1 and trace.column("output_tokens").min() >= 1
    assert 200 < len(trace) < 5000
    assert load(name).about


def test_the_same_seed_is_the_same_trace_in_another_process():
    code = "from traces import synthesise; print(synthesise('azure-conv', duration=50, seed=3).fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert synthesise("azure-conv", duration=50, seed=3).fingerprint() == other
    assert synthesise("azure-conv", duration=50, seed=4).fingerprint() != other


def test_another_rate_keeps_the_lengths():
    slow, fast = synthesise("azure-conv", duration=60, rate=5), synthesise("azure-conv", duration=60, rate=50)
    assert (slow.column("prompt_tokens") == fast.column("prompt_tokens")[: len(slow)]).all()


@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Process(gaps="constant"), 0.0),
        (Process(gaps="exponential"), 1.0),
        (Process(gaps="gamma", shape=0.25), 2.0),
        (Process(gaps="weibull", shape=0.5), math.sqrt(5)),
    ],
)
def test_gaps_have_the_rate_and_burstiness_of_their_law(process, cv):
    instants = arrivals(process, 100.0, 1000.0, rng())
    gaps = np.diff(instants)
    assert len(instants) == pytest.approx(100_000, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_a_wandering_rate_has_the_dispersion_of_its_formula():
    rate, variance, tau, width = 20.0, 0.3, 10.0, 20.0
    instants = arrivals(Process(wander=(Wander(variance, tau),)), rate, 40_000.0, rng())
    counts = np.bincount((instants // width).astype(int))
    expected = 1 + 2 * rate * variance * tau * (1 - tau / width * (1 - math.exp(-width / tau)))
    assert counts.var() / counts.mean() == pytest.approx(expected, rel=0.1)
    assert len(instants) == pytest.approx(800_000, rel=0.05)


def test_a_daily_rhythm_follows_the_clock():
    instants = arrivals(Process(rhythm=Rhythm(86400, (1.0, 3.0))), 1.0, 2 * 86400.0, rng())
    by_half_day = np.bincount((instants // 43200).astype(int))
    assert len(instants) == pytest.approx(2 * 86400, rel=0.02)
    midday = ((instants % 86400 > 32400) & (instants % 86400 < 54000)).sum()
    midnight = ((instants % 86400 < 10800) | (instants % 86400 > 75600)).sum()
    assert midday > 2 * midnight and len(by_half_day) == 4


def test_quantile_tables_mixtures_and_values_are_what_they_say():
    uniform = rng().random(50_000)
    table = Lengths(quantiles=((0, 10), (0.5, 100), (1, 1000)))
    assert np.quantile(distributions.quantile(table, uniform, 1), [0.25, 0.5, 0.75]) == pytest.approx(
        [32, 100, 316], rel=0.05
    )
    mixture = ((0.4, 2.0, 0.5), (0.6, 6.0, 0.2))
    below = lambda x: 0.4 * stats.norm.cdf((np.log(x) - 2) / 0.5) + 0.6 * stats.norm.cdf((np.log(x) - 6) / 0.2)  # noqa: E731
    assert stats.kstest(distributions._mixture(np.array(mixture), uniform), below).pvalue > 0.001
    assert distributions.quantile(Lengths(mixture=mixture, max=300), uniform, 1).max() == 300
    values = distributions.quantile(Lengths(values=((7, 1), (9, 3))), uniform, 1)
    assert set(values) == {7, 9} and (values == 9).mean() == pytest.approx(0.75, abs=0.01)
    assert set(distributions.quantile(Lengths(fixed=128), uniform, 1)) == {128}


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_the_copula_ties_prompts_to_outputs(rho):
    first, second = distributions.pairs(50_000, rho, (1,))
    assert stats.spearmanr(first, second).statistic == pytest.approx(6 / math.pi * math.asin(rho / 2), abs=0.02)
    assert stats.kstest(second, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such workload"),
        ("{", "not JSON"),
        ("[]", "expected an object"),
        (json.dumps({"prompt": {}, "output": {"fixed": 1}}), "unknown length distribution"),
        (json.dumps({"prompt": {"fixed": 1}}), "field output: is missing"),
        (json.dumps({"prompt": {"fixed": 1}, "output": {"odd": 1}}), "field output.odd: is unknown"),
        (json.dumps({"prompt": {"fixed": 1}, "output": {"fixed": 1}, "arrivals": {"gaps": "odd"}}), "unknown gaps"),
        (json.dumps({"prompt": {"fixed": "x"}, "output": {"fixed": 1}}), "field prompt.fixed: expected a number"),
        (json.dumps({"prompt": {"fixed": 1e30}, "output": {"fixed": 1}}), "expected lengths from 0"),
        (json.dumps({"prompt": {"fixed": 1}, "output": {"fixed": -1}}), "expected lengths from 0"),
        (json.dumps({"prompt": {"fixed": math.nan}, "output": {"fixed": 1}}), "expected lengths from 0"),
        (
            json.dumps({"prompt": {"quantiles": [[0, 5], [1, 1e30]]}, "output": {"fixed": 1}}),
            "expected lengths from 0",
        ),
        (json.dumps({"prompt": {"quantiles": [[0, -5], [1, 9]]}, "output": {"fixed": 1}}), "below 0"),
    ],
)
def test_a_bad_workload_is_refused(tmp_path, content, says):
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=says):
        synthesise(str(path))


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": -1}, {"duration": 0}, {"rate": 1e9}, {"rate": math.nan}])
def test_an_impossible_rate_or_duration_is_refused(wrong):
    with pytest.raises(InputError):
        synthesise("azure-conv", **wrong)
