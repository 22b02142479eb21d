"""What must hold whatever arrives: conservation, memory, budgets, work conservation, determinism, monotonicity."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.simulated.build import build
from targets.simulated.engine.batching import Batching, Roofline
from targets.simulated.engine.job import EventQueue, Job
from targets.simulated.engine.replica import Replica

from .engines import endpoint, work

ROOFLINE = Roofline(
    weights=9.8e-3, kv=3.9e-7, attention=2.5e-9, decoded=6.3e-5, prefilled=6.2e-5, head=1e-6, c0=3.1e-3, c1=6.8e-5
)
JOBS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300), st.integers(1, 120)), min_size=1, max_size=25).map(
    sorted
)
FORMS = st.fixed_dictionaries(
    {
        "kv_tokens": st.integers(432, 3000),
        "max_batch": st.integers(1, 8),
        "chunk": st.sampled_from([1, 16, 100, 512, 1 << 40]),
        "decode_first": st.booleans(),
        "static": st.booleans(),
        "interval": st.sampled_from([0.0, 0.02]),
        "drafted": st.sampled_from([0, 3]),
    }
)


class Audited(Replica):
    """A replica that checks itself at each turn and keeps its steps."""

    def _next(self, now: float) -> None:
        super()._next(now)
        jobs = [entry[2] for entry in self.running]
        held = sum(job.blocks for job in [*self.prefilling, *self.held])
        if self.batching.drafted:
            held += sum(job.blocks for job in jobs)
        else:
            held += sum(-(-(job.base + self.batch.steps - 1) // 16) for job in jobs)
            assert self.batch.context == sum(job.base + self.batch.steps for job in jobs)
        assert held + self.memory.pages.free == self.memory.pages.capacity
        assert 0 <= self.memory.pages.free <= self.memory.pages.capacity
        assert len(self.running) + len(self.prefilling) <= self.batching.max_batch
        budget = max(self.batching.chunk - (len(jobs) if self._decodes else 0), 1)
        assert sum(tokens for _, tokens in self._chunks) <= budget
        # Work conservation: nothing rests while something could be done.
        if self._state == 0:
            assert not (self.waiting or self.prefilling or self.running)


def simulate(form: dict, jobs: list[tuple[float, int, int]], longest: float) -> tuple[list[Job], Replica, dict]:
    queue = EventQueue()
    replica = Audited(queue, ROOFLINE, Batching(context=1 << 30, acceptance=0.7, longest=longest, **form))
    tokens: dict[Job, int] = {}

    def emit(some, now):
        for job in some:
            steps = replica.batch.steps - job.entered
            tokens[job] = tokens.get(job, 0) + (job.counts[steps - 1] if job.counts and steps else 1)

    if longest == 1:
        queue.emit = emit
    left: list[Job] = []
    for number, (arrival, prompt, output) in enumerate(jobs):
        queue.run(arrival)
        replica.submit(Job(number, arrival, prompt, output, lambda job, now: left.append(job)), arrival)
    queue.run(inf)
    assert len(left) == len(jobs)
    assert replica.memory.pages.free == replica.memory.pages.capacity
    assert replica.batch.context == pytest.approx(0, abs=1e-6)
    return sorted(left, key=lambda job: job.number), replica, tokens


@settings(max_examples=150, deadline=None)
@given(FORMS, JOBS)
def test_stretches_and_single_steps_tell_the_same_story(form, jobs):
    jumped, _, _ = simulate(form, jobs, inf)
    stepped, _, tokens = simulate(form, jobs, 1)
    for one, other in zip(jumped, stepped, strict=True):
        assert one.first == pytest.approx(other.first, abs=1e-7)
        assert one.last == pytest.approx(other.last, abs=1e-7)
        assert other.arrival <= other.begun <= other.first <= other.last
        # Each token comes out once: those emitted, and the last step's, which go with the end.
        last = (other.counts or [1])[-1] if other.output > 1 else 1
        if not other.preempted:
            assert tokens.get(other, 0) + last == other.output


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(432, 800))
def test_preempted_jobs_write_each_token_once(jobs, kv_tokens):
    form = {"kv_tokens": kv_tokens, "max_batch": 8, "chunk": 512, "decode_first": True}
    stepped, _, tokens = simulate(form, jobs, 1)
    for job in stepped:
        assert tokens.get(job, 0) + 1 == job.output


def test_preemption_happens_and_costs_time():
    jobs = [(0.0, 200, 100)] * 6
    tight, _, _ = simulate({"kv_tokens": 1300, "max_batch": 8, "chunk": 512}, jobs, inf)
    roomy, _, _ = simulate({"kv_tokens": 3000, "max_batch": 8, "chunk": 512}, jobs, inf)
    assert sum(job.preempted for job in tight) > 0
    assert sum(job.preempted for job in roomy) == 0
    assert max(job.last for job in tight) > max(job.last for job in roomy)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 256), st.integers(1, 400_000), st.integers(1, 3000), st.booleans())
def test_a_stretch_is_the_sum_of_its_steps_and_knows_its_inverse(decodes, context, steps, compute_bound):
    rate = 5e-8 if compute_bound else 2.5e-9  # with the first, the two branches cross inside
    roofline = Roofline(9.8e-3, 1e-8, rate, 6.3e-5, 6.2e-5, 1e-6, 3.1e-3, 6.8e-5)
    singly = sum(roofline.decode(decodes, context + decodes * step) for step in range(steps))
    whole = roofline.span(decodes, context, steps)
    assert whole == pytest.approx(singly, rel=1e-9)
    assert roofline.steps_by(decodes, context, whole * (1 - 1e-12)) == steps
    if steps > 1:
        assert roofline.steps_by(decodes, context, roofline.span(decodes, context, steps - 1) * (1 + 1e-9)) == steps


def test_the_same_seed_gives_the_same_instants():
    jobs = [(0.1 * n, 100 + 7 * n, 50) for n in range(30)]
    for options in ({}, {"drafted": 3}):
        once, again = (work(endpoint("h100", **options), jobs) for _ in range(2))
        assert [(job.first, job.last) for job in once] == [(job.first, job.last) for job in again]


@settings(max_examples=30, deadline=None)
@given(JOBS, st.floats(1.0, 4.0))
def test_more_bandwidth_never_slows_a_full_batch(jobs, factor):
    at_once = [(0.0, prompt, output) for _, prompt, output in jobs]
    slow = work(endpoint("a100"), at_once)
    fast = work(endpoint("a100", bandwidth=1.555e12 * factor), at_once)
    for one, other in zip(slow, fast, strict=True):
        assert other.last <= one.last * (1 + 1e-12)


@pytest.mark.parametrize("use", [0.3, 0.7])
def test_groqracks_queue_is_m_d_1(use):
    service = (100 + 31 + 32 * 99) * 138.5e-6
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(service / use, 120_000))
    jobs = work(endpoint("groqrack"), [(float(at), 100, 100) for at in arrivals])
    wait = np.mean([job.begun - job.arrival for job in jobs])
    assert wait == pytest.approx(use * service / (2 * (1 - use)), rel=0.03)


@settings(max_examples=40, deadline=None)
@given(JOBS, st.sampled_from(["h100", "groqrack", "disaggregated", "h100-disagg", "local-prefill"]), st.data())
def test_clients_that_leave_leave_nothing_behind(jobs, name, data):
    made = build(name, real_time=True, settings={"prefix_cache": "1"} if name == "h100" else {})
    queue, station = made.queue, made.station
    left: list[Job] = []
    inside: list[Job] = []
    for number, (arrival, prompt, output) in enumerate(jobs):
        queue.run(arrival)
        prefix = tuple((block, 16) for block in range(prompt // 16))
        job = Job(number, arrival, prompt, output, lambda job, now: left.append(job), prefix=prefix)
        station.submit(job, arrival)
        inside.append(job)
        if data.draw(st.booleans()):
            leaver = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            if leaver.last < 0:
                station.cancel(leaver, arrival)
    queue.run(inf)
    assert station.use()[:2] == (0, 0)
    assert {job for job in inside if job.last < 0} == set()
    if name == "h100":
        replica = station.replicas[0]
        assert replica.memory.pages.free + replica.memory.cache.idle_blocks == replica.memory.pages.capacity
        assert not replica.memory.cache.pinned
    else:
        assert station.use()[2] == 0
