"""Measured points, and the findings of arXiv:2606.17104, from the tabled constants."""

from __future__ import annotations

import pytest

from .engines import alone, endpoint, tpot, work

# LLM-Inference-Bench, All_results.csv: seconds for B requests of S prompt and S output tokens, Llama2-7B, vLLM.
TOTALS = [
    ("a100", 128, 1, 1.653),
    ("a100", 128, 16, 2.013),
    ("a100", 128, 64, 3.330),
    ("a100", 1024, 1, 13.98),
    ("a100", 1024, 16, 25.05),
    ("h100", 128, 1, 0.933),
    ("h100", 128, 16, 1.135),
    ("h100", 128, 64, 1.845),
    ("h100", 1024, 1, 7.839),
    ("h100", 1024, 16, 13.17),
]
POLICIES = [{}, {"policy": "prefill-first", "chunk": 0}]


@pytest.mark.parametrize("settings", POLICIES)
@pytest.mark.parametrize(("name", "length", "batch", "seconds"), TOTALS)
def test_measured_totals_are_met_within_3_percent(name, length, batch, seconds, settings):
    jobs = work(endpoint(name, **settings), [(0.0, length, length)] * batch)
    assert max(job.last for job in jobs) == pytest.approx(seconds, rel=0.03)


@pytest.mark.parametrize("settings", POLICIES)
@pytest.mark.parametrize(("name", "seconds"), [("a100", 1.030), ("h100", 0.422)])
def test_measured_ttft_of_16_prompts_is_met_within_5_percent(name, seconds, settings):
    jobs = work(endpoint(name, **settings), [(0.0, 1024, 1)] * 16)
    assert max(job.first for job in jobs) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(("name", "engine", "ms"), [("a100", "vllm", 6.3), ("h100", "trtllm", 3.75)])
def test_the_fitted_all_reduce_gives_back_its_point(name, engine, ms):
    job = alone(endpoint(name, engine=engine, tp=4), 128, 129)
    assert tpot(job) * 1e3 == pytest.approx(ms, rel=0.01)


@pytest.mark.parametrize("prompt", [128, 256, 512, 1024, 2048, 4000])
@pytest.mark.parametrize("gpu", ["a100-40g", "a100-80g", "h100", "gh200"])
def test_gpus_win_prefill(gpu, prompt):
    assert alone(endpoint(gpu), prompt, 2).first < alone(endpoint("groqrack"), prompt, 2).first


@pytest.mark.parametrize("prompt", [16, 128, 512])
def test_groqrack_wins_decode_at_batch_1_by_about_three(prompt):
    ratio = tpot(alone(endpoint("a100-40g"), prompt, 128)) / tpot(alone(endpoint("groqrack"), prompt, 128))
    assert 2.7 <= ratio <= 3.3


def throughput(name: str, batch: int, **settings: object) -> float:
    """Tokens a second of `batch` sequences while all of them decode."""
    jobs = work(endpoint(name, **settings), [(0.0, 128, 256)] * batch)
    return sum(job.output - 1 for job in jobs) / (max(job.last for job in jobs) - max(job.first for job in jobs))


@pytest.mark.parametrize(
    ("gpu", "rack", "passes"),
    [
        ("a100", "groqrack-alcf", 4),
        ("h100", "groqrack-alcf", 2),
        ("a100", "groqrack-published", 12),
        ("h100", "groqrack-published", 6),
    ],
)
def test_gpu_decode_passes_groqrack_as_the_batch_grows(gpu, rack, passes):
    alone_there = 1 / tpot(alone(endpoint(rack), 128, 256))
    crossing = next(batch for batch in range(1, 33) if throughput(gpu, batch) > alone_there)
    assert 2 <= crossing <= 16
    assert abs(crossing - passes) <= 1


def test_the_latency_floor_is_the_weights_over_the_bandwidth():
    floor = 2 * (6.738e9 - 1.311e8) / (1.555e12 * 0.87)
    for batch in (1, 8, 64):
        jobs = work(endpoint("a100"), [(0.0, 16, 64)] * batch)
        assert min(tpot(job) for job in jobs) > floor


def test_tensor_parallelism_precision_and_drafts_shorten_decoding():
    plain = tpot(alone(endpoint("h100"), 128, 256))
    for settings in ({"tp": 2}, {"precision": "fp8"}, {"drafted": 3, "acceptance": 0.8}):
        assert tpot(alone(endpoint("h100", **settings), 128, 256)) < plain
    assert tpot(alone(endpoint("b200", precision="fp4"), 128, 256)) < tpot(alone(endpoint("b200"), 128, 256))


def test_a_pipeline_is_its_formula():
    stage, stages = 138.5e-6, 32
    for prompt, output in ((1, 1), (128, 100), (3000, 1000)):
        job = alone(endpoint("groqrack"), prompt, output)
        assert job.first == pytest.approx((prompt + stages - 1) * stage)
        assert job.last - job.first == pytest.approx((output - 1) * stages * stage)
