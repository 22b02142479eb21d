"""The wheel of time limits, held against the plain list that it stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targets.address import Address
from targets.client.deadlines import TICK_NS, Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), st.integers(-TICK_NS, 9 * TICK_NS)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 4 * TICK_NS)),
        st.tuples(st.just("sleep"), st.just(0), st.integers(0, 10**6 * TICK_NS)),
    )
)


@given(STEPS)
def test_a_key_is_due_once_never_early_and_at_most_two_ticks_late(steps: list[tuple[str, int, int]]) -> None:
    now = 1_000 * TICK_NS
    wheel: Deadlines[int] = Deadlines(now)
    wanted: dict[int, int] = {}
    for what, key, amount in steps:
        if what == "put":
            wheel.put(key, now + amount)
            wanted[key] = now + amount
        elif what == "drop":
            wheel.drop(key)
            wanted.pop(key, None)
        else:
            now += amount
            due = wheel.due(now)
            assert len(due) == len(set(due))
            for one in due:
                assert wanted.pop(one) <= now
            assert all(instant > now - 2 * TICK_NS for instant in wanted.values()), "overlooked"
        assert wheel._at.keys() == wanted.keys()


def test_paths_are_joined_where_they_overlap() -> None:
    def path(prefix: str, below: str, proxy: str = "") -> str:
        return Address("http", "h", "h:1", prefix, (), proxy).path(below)

    assert path("", "/v1/chat/completions") == "/v1/chat/completions"
    assert path("/v1", "/v1/chat/completions") == "/v1/chat/completions"
    assert path("/openai/v1", "/openai/v1/chat/completions") == "/openai/v1/chat/completions"
    assert path("/openai", "/openai/v1/chat/completions") == "/openai/v1/chat/completions"
    assert path("/deep/gateway", "/v1/completions") == "/deep/gateway/v1/completions"
    assert path("/v1", "/generate") == "/v1/generate"
    assert path("", "/v1/x", "forward") == "http://h:1/v1/x"
