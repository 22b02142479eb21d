"""Shapes: what stays, what goes, and that the workers' parts are a partition that respects sessions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import transforms
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace, build


def steady(rows: int = 10, **more: list[int]) -> Trace:
    return build(
        {
            "due": [second * NS_PER_S for second in range(rows)],
            "prompt_tokens": [100 * (row + 1) for row in range(rows)],
            "output_tokens": [10 * (row + 1) for row in range(rows)],
            **more,
        }
    )


traces = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(1, 10**5), st.integers(0, 10**4), st.integers(-1, 5)),
    min_size=1,
    max_size=40,
).map(
    lambda rows: build(
        {
            "due": sorted(row[0] for row in rows),
            "prompt_tokens": [row[1] for row in rows],
            "output_tokens": [row[2] for row in rows],
            "session": [row[3] for row in rows],
        }
    )
)


def test_clip_is_half_open_and_starts_anew():
    part = transforms.clip(steady(), 2, 5)
    assert [(r.index, r.due) for r in part] == [(2, 0), (3, NS_PER_S), (4, 2 * NS_PER_S)]
    assert part.transforms == ("clip 2-5 s",)
    assert len(transforms.clip(steady(), 3)) == 7


def test_limit_takes_the_first():
    assert [r.index for r in transforms.limit(steady(), 3)] == [0, 1, 2]


def test_speed_is_exact_and_scales_think_time():
    trace = steady(3, think=[0, 3, 6], parent=[-1, 0, 1])
    assert [r.due for r in transforms.speedup(trace, 2)] == [0, NS_PER_S // 2, NS_PER_S]
    assert [r.think for r in transforms.speedup(trace, 3)] == [0, 1, 2]
    assert [r.due for r in transforms.speedup(trace, 0.5)] == [0, 2 * NS_PER_S, 4 * NS_PER_S]


def test_any_speed_up_is_exact():
    assert [r.due for r in transforms.speedup(steady(3), 1e300)] == [0, 0, 0]


def test_cap_context_leaves_room_for_the_answer():
    capped = transforms.cap_context(steady(), 500)
    assert [(r.prompt_tokens, r.output_tokens) for r in capped][:5] == [
        (100, 10),
        (200, 20),
        (300, 30),
        (400, 40),
        (450, 50),
    ]


def test_children_of_requests_left_out_wait_for_nobody():
    trace = steady(4, parent=[-1, 0, 1, 2])
    assert [r.parent for r in transforms.clip(trace, 2)] == [-1, 2]


@given(traces, st.integers(1, 5))
def test_shards_are_a_partition_and_keep_sessions_whole(trace, count):
    parts = [transforms.part_of(trace, number, count) for number in range(count)]
    assert sorted(r.index for part in parts for r in part) == list(range(len(trace)))
    for session in set(trace.column("session").tolist()) - {-1}:
        assert sum(session in part.column("session") for part in parts) == 1


@given(traces, st.integers(2, 20_000))
def test_capped_requests_fit_and_never_grow(trace, context):
    capped = transforms.cap_context(trace, context)
    prompt, output = capped.column("prompt_tokens"), capped.column("output_tokens")
    assert (prompt + output <= context).all() and (prompt >= 1).all()
    assert (prompt <= trace.column("prompt_tokens")).all() and (output <= trace.column("output_tokens")).all()


@given(traces, st.floats(0.01, 100))
def test_speed_keeps_the_order(trace, factor):
    assert (np.diff(transforms.speedup(trace, factor).column("due")) >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: transforms.clip(t, 5, 5),
        lambda t: transforms.clip(t, float("nan"), float("nan")),
        lambda t: transforms.clip(t, float("nan")),
        lambda t: transforms.clip(t, 0, float("inf")),
        lambda t: transforms.clip(t, 1e300),
        lambda t: transforms.limit(t, 0),
        lambda t: transforms.speedup(t, 0),
        lambda t: transforms.speedup(t, 1e-9),
        lambda t: transforms.speedup(t, 1e-320),
        lambda t: transforms.speedup(t, float("nan")),
        lambda t: transforms.pace(t, float("nan")),
        lambda t: transforms.pace(t, 1e-12),
        lambda t: transforms.pace(t, 1e-320),
        lambda t: transforms.cap_context(t, 1),
        lambda t: transforms.part_of(t, 2, 2),
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError):
        wrong(steady())
