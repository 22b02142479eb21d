"""Shapes that add requests: every request once, order, sessions whole, shared text shared and private text private."""

from math import ceil, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import transforms
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace, build
from traces.workload import synthesise


def talk(block_tokens: int | dict[int, int] = 10) -> Trace:
    """Two sessions of two turns and a single request; block 1 is everybody's, the others one session's."""
    return build(
        {
            "due": [0, 1 * NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S, 4 * NS_PER_S],
            "prompt_tokens": [20, 20, 30, 10, 30],
            "output_tokens": [1, 2, 3, 4, 5],
            "session": [0, 1, 0, -1, 1],
            "turn": [0, 0, 1, 0, 1],
            "parent": [-1, -1, 0, -1, 1],
            "think": [0, 0, 5, 0, 6],
            "prefix": [[1, 2], [1, 3], [1, 2, 4], [1], [1, 3, 5]],
        },
        block_tokens=block_tokens,
    )


def sound(trace: Trace) -> None:
    rows = {request.index: request for request in trace}
    assert list(rows) == list(range(len(trace)))
    assert (np.diff(trace.column("due")) >= 0).all()
    for request in trace:
        if request.parent >= 0:
            assert rows[request.parent].session == request.session
            assert rows[request.parent].turn == request.turn - 1
        if not isinstance(trace.block_tokens, int):
            assert all(block in trace.block_tokens for block in request.prefix)


@pytest.mark.parametrize("block_tokens", [10, {1: 10, 2: 10, 3: 10, 4: 10, 5: 10}])
def test_repeat_follows_on_with_other_users(block_tokens):
    twice = transforms.repeat(talk(block_tokens), 2)
    sound(twice)
    assert [r.due for r in twice][5:] == [(5 + second) * NS_PER_S for second in range(5)]
    first, again = list(twice)[:5], list(twice)[5:]
    assert [r.output_tokens for r in again] == [r.output_tokens for r in first]
    for before, after in zip(first, again, strict=True):
        assert after.prefix[0] == before.prefix[0] == 1  # the system prompt
        assert not set(after.prefix[1:]) & set(before.prefix[1:])
    assert len({r.session for r in twice} - {-1}) == 4 and again[2].prefix[:2] == again[0].prefix


def test_merge_shares_nothing_between_traces():
    both = transforms.merge([talk(), talk({1: 10, 2: 20, 3: 30, 4: 40, 5: 50})])
    sound(both)
    assert len(both) == 10 and sorted({r.session for r in both}) == [-1, 0, 1, 2, 3]
    ours = [{block for r in both if r.session in sessions for block in r.prefix} for sessions in ((0, 1), (2, 3))]
    assert not ours[0] & ours[1]
    assert sorted(both.block_tokens[block] for block in ours[1]) == [10, 20, 30, 40, 50]


def test_merge_takes_traces_of_different_columns():
    plain = build({"due": [NS_PER_S // 2], "prompt_tokens": [7], "output_tokens": [8]})
    both = transforms.merge([talk(), plain])
    sound(both)
    assert [(r.due, r.prompt_tokens) for r in both][1] == (NS_PER_S // 2, 7)
    assert list(both)[1].prefix == () and list(both)[1].session == -1


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.5, 3.0])
def test_the_rate_scales_and_the_span_stays(factor):
    trace = synthesise("mooncake-conversation", duration=600, rate=5)
    scaled = transforms.scale_rate(trace, factor, seed=1)
    assert len(scaled) == pytest.approx(factor * len(trace), rel=0.1)
    if factor > 1:
        sound(scaled)
        assert scaled.span == pytest.approx(trace.span, rel=0.01)
    again = transforms.scale_rate(trace, factor, seed=1)
    assert again.fingerprint() == scaled.fingerprint()


def test_thinning_keeps_sessions_whole_and_names():
    trace = synthesise("weka-agentic", duration=300, rate=5)
    thin = transforms.scale_rate(trace, 0.5)
    kept = set(thin.column("session").tolist())
    assert 0 < len(kept) < len(set(trace.column("session").tolist()))
    assert [r.index for r in thin] == [r.index for r in trace if r.session in kept]


@given(st.integers(1, 50), st.integers(1, 4), st.booleans())
def test_repeat_of_anything_has_every_request(rows, times, tied):
    trace = build(
        {"due": [0] * rows if tied else range(rows), "prompt_tokens": [3] * rows, "output_tokens": [1] * rows}
    )
    many = transforms.repeat(trace, times)
    sound(many)
    assert len(many) == rows * times


def test_only_keeps_the_wanted_lengths():
    assert [r.prompt_tokens for r in transforms.only(talk(), prompt=(20, 25))] == [20, 20]
    assert [r.index for r in transforms.only(talk(), output=(3, None))] == [2, 3, 4]
    assert [r.parent for r in transforms.only(talk(), output=(3, None))] == [-1, -1, -1]
    assert transforms.only(talk()) == talk() or len(transforms.only(talk())) == 5


def test_pace_starts_sessions_at_a_rate_and_keeps_them_together():
    paced = transforms.pace(talk(), 0.01, burstiness=inf)
    due = {r.index: r.due for r in paced}
    assert due[2] - due[0] == 2 * NS_PER_S and due[4] - due[1] == 3 * NS_PER_S
    assert [due[0], due[1], due[3]] == [0, 100 * NS_PER_S, 200 * NS_PER_S]
    assert (np.diff(paced.column("due")) >= 0).all()


def test_blocks_of_merged_traces_are_apart_where_each_request_has_one():
    alone = build({"due": [0], "prompt_tokens": [7], "output_tokens": [8], "prefix": [[1]]}, block_tokens=4)
    assert len({request.prefix for request in transforms.merge([alone, alone])}) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: transforms.merge([]),
        lambda: transforms.repeat(talk(), 0),
        lambda: transforms.scale_rate(talk(), 0),
        lambda: transforms.pace(talk(), 0),
    ],
)
def test_nonsense_shapes_are_refused(wrong):
    with pytest.raises(InputError):
        wrong()


@st.composite
def traffic(draw) -> Trace:
    """Sessions of one to four turns that share block 1, each with a block of its own a turn, and single requests."""
    rows, fresh = [], 2
    for session, turns in enumerate(draw(st.lists(st.integers(0, 4), min_size=1, max_size=12))):
        due, blocks = draw(st.integers(0, 1000)), [1]
        for turn in range(turns or 1):
            blocks, fresh = [*blocks, fresh], fresh + 1
            rows.append((due, session if turns else -1, turn, len(rows) - 1 if turn else -1, blocks))
            due += draw(st.integers(0, 500))
    order = sorted(range(len(rows)), key=lambda row: rows[row][0])
    place = {row: at for at, row in enumerate(order)}
    due, session, turn, parent, prefix = zip(*(rows[row] for row in order), strict=True)
    lengths = [10 * len(blocks) for blocks in prefix]
    return build(
        {
            "due": list(due), "prompt_tokens": lengths, "output_tokens": [1] * len(due), "session": list(session),
            "turn": list(turn), "parent": [place.get(row, -1) for row in parent], "prefix": list(prefix),
        },
        block_tokens=10,
    )  # fmt: skip


def sessions(trace: Trace) -> list[tuple[tuple[int, ...], ...]]:
    """What each session does, whatever its name: due instants, prompts, turns; single requests are sessions."""
    seen: dict[int, list[tuple[int, ...]]] = {}
    for request in trace:
        owner = request.session if request.session >= 0 else -2 - request.index
        seen.setdefault(owner, []).append((request.due, request.prompt_tokens, request.turn))
    return sorted(tuple(rows) for rows in seen.values())


@given(st.lists(traffic(), min_size=4, max_size=4), st.floats(0.05, 4.0), st.integers(0, 99))
def test_a_multiple_is_of_whole_sessions(slices, factor, seed):
    multiple = transforms.superpose(slices, factor, seed)
    whole, share = int(factor), factor - int(factor)
    every = [sessions(each) for each in slices]
    count = sum(map(len, every[:whole])) + (round(share * len(every[whole])) if share else 0)
    done = sessions(multiple)
    assert len(done) == count
    left = sorted(session for each in every[: ceil(factor)] for session in each)
    for session in done:
        left.remove(session)  # each is one of theirs, turn by turn at its own instants, and none comes twice
    if factor > 1:
        sound(multiple)
        assert len({r.prefix[0] for r in multiple}) <= ceil(factor)
    assert (np.diff(multiple.column("due")) >= 0).all()
    assert transforms.superpose(slices, factor, seed).fingerprint() == multiple.fingerprint()


@given(traffic(), traffic())
def test_superposed_slices_share_only_what_their_sessions_shared(first, second):
    both = transforms.superpose([first, second], 2.0)
    owners = {}
    for r in both:
        for block in r.prefix:
            owners.setdefault(block, set()).add(r.session if r.session >= 0 else -2 - r.index)
    shared = {block for block, each in owners.items() if len(each) > 1}
    assert shared <= {1}


@given(st.lists(traffic(), min_size=3, max_size=3))
def test_what_was_superposed_before_can_be_again(slices):
    once = transforms.superpose(slices[:2], 2.0)
    twice = transforms.superpose([once, transforms.superpose(slices[1:], 2.0)], 2.0)
    owners = {}
    for r in twice:
        for block in r.prefix:
            owners.setdefault(block, set()).add(r.session if r.session >= 0 else -2 - r.index)
    assert {block for block, each in owners.items() if len(each) > 1} <= {1}


def test_a_multiple_keeps_rate_bursts_and_pauses():
    slices = [synthesise("mooncake-conversation", duration=600, rate=5, seed=seed) for seed in range(3)]
    for factor in (0.5, 1.5, 3.0):
        multiple = transforms.superpose(slices, factor)
        assert len(multiple) == pytest.approx(factor * len(slices[0]), rel=0.06)
        assert multiple.span == pytest.approx(slices[0].span, rel=0.02)
        thinks = multiple.column("think")[multiple.column("parent") >= 0]
        own = slices[0].column("think")[slices[0].column("parent") >= 0]
        assert np.median(thinks) == pytest.approx(np.median(own), rel=0.1)


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.5, float("nan")])
def test_a_multiple_needs_slices(factor):
    with pytest.raises(InputError, match="superpose"):
        transforms.superpose([talk(), talk()], factor)
