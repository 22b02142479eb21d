"""`fit` makes traces like the one it saw; synthetic sessions are sound; bundled workloads behave like the real ones."""

import numpy as np
import pytest
from scipy import stats

from tests.public_traces import public_trace
from traces import fitting
from traces.errors import InputError
from traces.fitting import closeness, fit, kolmogorov
from traces.reading import open_trace
from traces.statistics import describe
from traces.trace import Trace, build
from traces.typed_json import from_json, from_plain, to_json
from traces.workload import Workload, load, synthesise

REAL = {
    "azure-conv": "AzureLLMInferenceTrace_conv.csv",
    "azure-code": "AzureLLMInferenceTrace_code.csv",
    "mooncake-conversation": "mooncake_conversation_trace.jsonl.gz",
}


def made(arrivals: dict, duration: float = 3000) -> Workload:
    lengths = {"prompt": {"mixture": [[1, 6, 1]]}, "output": {"mixture": [[0.5, 3, 0.5], [0.5, 5, 0.5]]}}
    return from_plain(Workload, {"arrivals": arrivals, "duration": duration, "copula": 0.5, **lengths}, "made")


@pytest.mark.parametrize(
    "arrivals",
    [
        {"rate": 5.0, "gaps": "exponential"},
        {"rate": 5.0, "gaps": "gamma", "shape": 0.4},
        {"rate": 5.0, "wander": [{"variance": 0.2, "tau": 20}]},
        {"rate": 5.0, "rhythm": {"period": 3000, "relative": [1, 3, 2, 1]}},
    ],
)
def test_a_fit_to_a_synthetic_trace_makes_traces_like_it(arrivals):
    trace = synthesise(made(arrivals), seed=5)
    workload = from_json(Workload, to_json(fit(trace)), "fitted")
    assert workload.copula == pytest.approx(0.5, abs=0.05)
    for found in closeness(trace, workload):
        assert abs(found["requests"]) < 0.05
        assert max(found["prompt_tokens KS"], found["output_tokens KS"]) < 0.02
        assert found["gaps KS"] < 0.07
        assert all(abs(found[f"dispersion {window} s"]) < 0.35 for window in (1, 10))


def test_an_even_beat_is_seen_as_one():
    assert fit(synthesise(made({"rate": 5.0, "gaps": "constant"}, 300))).arrivals.gaps == "constant"


def test_on_and_off_is_seen_as_bursts():
    bursts = {"size": {"fixed": 100}, "off_ms": {"fixed": 60_000}, "gap_us": {"fixed": 20_000}}
    trace = synthesise(made({"rate": 100 / 62, "bursts": bursts}), seed=1)
    found = fit(trace).arrivals.bursts
    assert np.median([tokens for _, tokens in found.size.quantiles]) == pytest.approx(100, abs=1)
    assert found.off_ms.quantiles[30][1] == pytest.approx(60_000, rel=0.01)
    faster = synthesise(made({"rate": 100 / 62, "bursts": bursts}), rate=10 * 100 / 62, duration=300)
    assert len(faster) == pytest.approx(len(trace), rel=0.05)


def test_clients_are_superposed_in_proportion():
    clients = [{"rate": 3.0, "gaps": "constant"}, {"rate": 1.0, "gaps": "gamma", "shape": 0.1}]
    trace = synthesise(made({"clients": clients}), rate=8.0, duration=1000)
    assert len(trace) == pytest.approx(8000, rel=0.05)
    assert (np.diff(trace.column("due")) >= 0).all()


def test_kolmogorov_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, 300), rng.integers(2, 22, 500)
    assert kolmogorov(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)


@pytest.mark.parametrize("name", ["mooncake-conversation", "ragpulse", "weka-agentic"])
def test_synthetic_sessions_are_sound(name):
    trace = synthesise(name, duration={"ragpulse": 200_000, "weka-agentic": 500}.get(name, 2000))
    rows = {request.index: request for request in trace}
    assert sum(request.parent >= 0 for request in trace) > 50
    for request in trace:
        if request.parent >= 0:
            before = rows[request.parent]
            assert before.due < request.due and before.session == request.session and request.turn == before.turn + 1
            assert 0 <= request.think <= request.due - before.due
        assert len(request.prefix) * trace.block_tokens < request.prompt_tokens + trace.block_tokens
    assert len({(r.session, r.turn) for r in trace}) == len(trace)


def test_agents_are_seen_as_sessions_that_grow():
    trace = synthesise("weka-agentic", duration=3000, rate=0.5)
    spec = fit(trace).sessions
    assert spec.mean_turns > 20 and spec.block_tokens == 64
    growth = dict(map(tuple, spec.growth.quantiles))
    expected = dict(map(tuple, load("weka-agentic").sessions.growth.quantiles))
    assert growth[0.5] == pytest.approx(expected[0.5], rel=0.3)


def test_synthetic_prefixes_are_reused_as_the_real_ones():
    assert describe(synthesise("mooncake-conversation")).prefix.hit_share == pytest.approx(0.37, abs=0.05)
    assert describe(synthesise("weka-agentic", duration=1200)).prefix.hit_share == pytest.approx(0.93, abs=0.03)
    assert describe(synthesise("ragpulse")).prefix.hit_share == pytest.approx(0.314, abs=0.03)


def test_openings_that_recur_are_found_again():
    trace = synthesise("ragpulse", seed=3)
    spec = fit(trace).sessions
    assert spec.common == 8 and spec.openings.blocks == 8
    assert describe(synthesise(fit(trace))).prefix.hit_share == pytest.approx(
        describe(trace).prefix.hit_share, abs=0.03
    )


@pytest.mark.parametrize("name", REAL)
def test_bundled_workloads_behave_like_the_real_traces(name):
    real = open_trace(public_trace(REAL[name]))
    for seed in range(3):
        found = fitting._compared(real, synthesise(name, seed=seed, duration=real.span / 1e9))
        assert max(found["prompt_tokens KS"], found["output_tokens KS"]) <= 0.03
        assert found["gaps KS"] <= 0.05
        assert all(abs(found[f"dispersion {window} s"]) <= 0.35 for window in (1, 10, 60))


def even(rows: int, apart: int = 10**9) -> Trace:
    return build(
        {"due": [row * apart for row in range(rows)], "prompt_tokens": [5] * rows, "output_tokens": [1] * rows}
    )


@pytest.mark.parametrize("rows", [10, 20, 30])
def test_a_short_trace_fits_too(rows):
    workload = fit(even(rows))
    assert from_json(Workload, to_json(workload), "fitted") == workload
    assert len(closeness(even(rows), workload)) == 3
    assert set(synthesise(workload, duration=100).column("prompt_tokens")) == {5}


@pytest.mark.parametrize(("rows", "apart"), [(1, 1), (2, 0), (9, 10**9), (10, 0)])
def test_a_trace_that_shows_nothing_is_refused(rows, apart):
    with pytest.raises(InputError, match="expected 10 requests or more"):
        fit(even(rows, apart))


def test_one_synthetic_request_has_no_gaps_to_compare():
    found = fitting._compared(even(10), even(1))
    assert found["gaps KS"] is None and found["gaps p50"] is None and found["prompt_tokens KS"] == 0
