"""Prefix cache and tiers: what is found, what is let go, and what multi-round conversations save."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.simulated.engine.job import Job
from targets.simulated.engine.kv_memory import Pages, PrefixCache, TierSize, chain

from .engines import endpoint

ROUND = 256  # tokens that each round of a conversation adds


def conversation(made, rounds: int, users: int = 1) -> list[Job]:
    """Rounds of `users` conversations in turn, each prompt the whole history; each waits for the one before."""
    jobs = []
    for turn in range(1, rounds + 1):
        for user in range(users):
            prompt = turn * ROUND
            prefix = tuple((user * 10_000 + block, 16) for block in range(prompt // 16))
            job = Job(len(jobs), made.queue.now, prompt, 20, lambda job, now: None, prefix=prefix)
            made.station.submit(job, made.queue.now)
            made.queue.run(inf)
            jobs.append(job)
    return jobs


def test_later_rounds_find_the_earlier_ones():
    jobs = conversation(endpoint("h100", prefix_cache=1), 6)
    assert [job.cached for job in jobs] == [0, 256, 512, 768, 1024, 1280]
    without = conversation(endpoint("h100"), 6)
    assert [job.cached for job in without] == [0] * 6
    assert jobs[-1].first - jobs[-1].arrival < 0.35 * (without[-1].first - without[-1].arrival)


def test_a_prompt_that_is_all_cached_still_computes_one_token():
    made = endpoint("h100", prefix_cache=1)
    conversation(made, 1)
    again = conversation(made, 1)[0]
    assert again.cached == 255
    assert again.first > again.arrival


def test_what_the_gpu_lets_go_comes_back_from_cpu_memory_faster_than_computed():
    crowd = 40  # conversations, more than 34 GB of KV on one a100
    fields = {"prefix_cache": 1}
    lost = conversation(endpoint("a100", **fields), 6, crowd)[-crowd:]
    kept = conversation(endpoint("a100", **fields, cpu_gb=200), 6, crowd)[-crowd:]
    assert sum(job.cached for job in lost) == 0  # least recently used: each has just been let go
    assert all(job.cached == 1280 for job in kept)
    mean_lost = sum(job.first - job.arrival for job in lost) / crowd
    mean_kept = sum(job.first - job.arrival for job in kept) / crowd
    assert mean_kept < mean_lost / 2
    load = 1280 * 524288 / 41e9
    assert kept[-1].first - kept[-1].arrival > load


def test_disk_is_the_tier_below_and_slower():
    crowd = 40
    disk = conversation(endpoint("a100", cpu_gb=1, disk_gb=400), 6, crowd)[-1]
    cpu = conversation(endpoint("a100", cpu_gb=200), 6, crowd)[-1]
    assert disk.cached == cpu.cached == 1280
    assert disk.first - disk.arrival > cpu.first - cpu.arrival


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(0, 2)), max_size=40), st.booleans())
def test_no_block_is_lost_or_counted_twice(moves, tiers):
    """Jobs of four conversations come and go in any order; free + idle + pinned + private is always all."""
    pages = Pages(16 * 60)
    cache = PrefixCache(pages, (TierSize(160, 1e-6), TierSize(320, 1e-5)) if tiers else ())
    inside: list[Job] = []

    def audit() -> None:
        private = sum(job.blocks for job in inside)
        assert pages.free + cache.idle_blocks + len(cache.pinned) + private == pages.capacity
        assert not set(cache.pinned) & set(cache.idle)
        tier = cache.tier
        while tier:
            assert tier.used == sum(tier.blocks.values()) <= tier.size.tokens
            tier = tier.below

    for who, blocks, action in moves:
        if action == 0 or not inside:
            prefix = tuple((who * 100 + number, 16) for number in range(blocks))
            job = Job(0, 0.0, blocks * 16, 1, lambda job, now: None, prefix=prefix)
            if blocks + 1 > pages.free + cache.idle_blocks:
                continue
            cache.take(job)
            job.blocks = blocks + 1 - job.shared
            cache.make_room(job.blocks)
            pages.free -= job.blocks
            assert pages.free >= 0
            inside.append(job)
        elif action == 1:
            cache.adopt(inside[who % len(inside)])
        else:
            job = inside.pop(who % len(inside))
            cache.drop(job)
            pages.free += job.blocks
            job.blocks = 0
        audit()


def test_ids_of_blocks_depend_on_all_before_them():
    one, other = chain(["a", "b"] * 16), chain(("x " + "a b " * 16).split()[:32])
    assert len(one) == 2
    assert not {id for id, _ in one} & {id for id, _ in other}
    assert chain(["a", "b"] * 16 + ["tail"]) == one


@pytest.mark.parametrize("setting", ["cpu_gb", "disk_gb"])
def test_a_tier_switches_the_cache_on(setting):
    assert endpoint("h100", **{setting: 10}).caches
    assert not endpoint("h100").caches
