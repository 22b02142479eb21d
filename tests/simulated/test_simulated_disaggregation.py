"""Prefill, link, decode: when a hybrid pays, how the link queues and overlaps, and local prefill."""

from __future__ import annotations

from itertools import pairwise

import pytest

from targets.simulated import analysis

from .engines import alone, endpoint, tpot, work

KV = 524288
GPUS = ("a100-40g", "h100")
LINKS = (1.1, 2.9, 7.0, 11.5, 46.0)  # GB/s
OUTPUTS = (2, 8, 32, 128, 512)
PROMPT = 1024
FIXED = 0.005


def hybrid(gpu: str, bandwidth: float, **more):
    """GPU prefill with GroqRack decode over a link with 5 ms of fixed cost, as in physics.md."""
    link = {"link__bandwidth": bandwidth, "link__t0": 0, "link__handover": FIXED}
    return endpoint("disaggregated", prefill=gpu, **(link | more))


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("bandwidth", LINKS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_the_hybrid_gains_exactly_where_the_two_conditions_hold(gpu, bandwidth, output):
    transfer = FIXED + PROMPT * KV / (bandwidth * 1e9)
    mixed = alone(hybrid(gpu, bandwidth), PROMPT, output)
    plain = alone(endpoint(gpu), PROMPT, output)
    rack = alone(endpoint("groqrack"), PROMPT, output)
    gain = tpot(plain) - tpot(rack)
    assert (mixed.last < plain.last) == (output - 1 > transfer / gain)
    # Against the rack alone: its prefill a token less the GPU's, against the link's time a token.
    assert (mixed.first < rack.first) == (transfer < rack.first - plain.first)
    assert mixed.first == pytest.approx(plain.first + transfer)
    assert tpot(mixed) == pytest.approx(tpot(rack))
    link = {"prefill": gpu, "link.t0": "0", "link.handover": str(FIXED)}
    [[shown]] = analysis.hybrid_gain("disaggregated", [output], [bandwidth], prompt=PROMPT, settings=link)
    assert (shown > 1) == (mixed.last < plain.last and mixed.first < rack.first)


@pytest.mark.parametrize(("gpu", "limit"), [("a100-40g", 7.3), ("h100", 4.8)])
def test_the_bandwidth_from_which_the_hybrids_ttft_wins(gpu, limit):
    """Without fixed costs: kv / (t_groq a token - t_gpu a token)."""
    for bandwidth, wins in ((limit * 0.9, False), (limit * 1.15, True)):
        mixed = alone(hybrid(gpu, bandwidth, link__handover=0), 3000, 2)
        assert (mixed.first < alone(endpoint("groqrack"), 3000, 2).first) == wins


def hybrid_with(**settings: object):
    return endpoint("disaggregated", **settings)


def test_transfers_queue_for_the_link():
    settings = {"link__bandwidth": 1.1, "decode__pool": 4}
    once = alone(hybrid_with(**settings), 1000, 2)
    wire = 1000 * KV / 1.1e9
    jobs = work(hybrid_with(**settings), [(0.0, 1000, 2)] * 3)  # prefilled faster than carried
    assert jobs[0].transferred == pytest.approx(once.transferred)
    for before, after in pairwise(jobs):
        assert after.transferred - before.transferred == pytest.approx(wire)


def test_overlap_hides_all_but_the_last_layer_on_a_fast_link():
    plain = alone(hybrid_with(), 1024, 2)
    overlapped = alone(hybrid_with(link__overlap=1), 1024, 2)
    size = 1024 * KV
    assert plain.transferred - plain.handed == pytest.approx(0.00039 + 0.045 + size / 46e9)
    assert overlapped.transferred - overlapped.handed == pytest.approx(0.00039 + 0.045 + size / 32 / 46e9)


def test_short_prompts_are_prefilled_where_they_are_decoded():
    for prompt, local in ((2047, True), (2048, False)):
        job = alone(endpoint("local-prefill"), prompt, 10)
        assert (job.handed < 0) == local
    assert alone(endpoint("local-prefill"), 100, 10).first < alone(endpoint("h100-disagg"), 100, 10).first


def test_prefill_pools_keep_the_kv_until_it_has_travelled():
    made = endpoint("disaggregated", link__bandwidth=1.1)
    pages = made.station.prefill.replicas[0].memory.pages
    jobs = work(made, [(0.0, 4000, 5)] * 12)  # 9 fit into an A100's memory at once
    assert pages.free == pages.capacity
    assert max(job.begun for job in jobs) > min(job.transferred for job in jobs)


def test_more_bandwidth_never_slows_a_transfer():
    firsts = [alone(hybrid_with(link__bandwidth=gb), 1024, 5).last for gb in (1, 2, 5, 10, 50, 450)]
    assert firsts == sorted(firsts, reverse=True)
