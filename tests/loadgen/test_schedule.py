"""The schedule in logs of simulated instants: open loops, sessions, a fixed number in flight, windows."""

from __future__ import annotations

import heapq
from itertools import pairwise

import gevent
from hypothesis import given
from hypothesis import strategies as st

from loadgen import plan as plans
from loadgen.plan import Arm, Step
from loadgen.run.dispatcher import Dispatcher, Lane, PromptBuffer
from loadgen.run.schedule import Schedule, share
from targets.clock import Clock
from targets.exchange import Call, Done, Exchange, Outcome
from targets.target import Target
from traces.prompts import Prompts
from traces.trace import Trace, build


def trace(*rows: tuple[int, int, int], sessions: bool = True) -> Trace:
    """Rows of (due, parent, think)."""
    columns = {
        "due": [row[0] for row in rows],
        "prompt_tokens": [1] * len(rows),
        "output_tokens": [1] * len(rows),
    }
    if sessions:
        columns |= {"session": [0] * len(rows), "parent": [r[1] for r in rows], "think": [r[2] for r in rows]}
    return build(columns)


def play(schedule: Schedule, took: int) -> list[tuple[int, int, int | None]]:
    """(index, due, planned) of everything sent, where each answer takes `took`."""
    log, now = [], 0
    open_: list[tuple[int, int]] = []
    requests = {}
    while not (schedule.exhausted(now) and not open_):
        due = schedule.next_due()
        if due is not None and (not open_ or due <= open_[0][0]):
            now = max(now, due)
            for ready in schedule.pop(now):
                assert ready.due <= now
                log.append((ready.request.index, ready.due, ready.planned))
                requests[ready.request.index] = ready.request
                heapq.heappush(open_, (now + took, ready.request.index))
        elif open_:
            now, index = heapq.heappop(open_)
            schedule.finished(requests[index], now)
        else:
            raise AssertionError("nothing is open, nothing is due, and yet it isn't exhausted")
    return log


def test_open_loop_follows_the_trace() -> None:
    assert play(Schedule(trace((0, -1, 0), (5, -1, 0), (5, -1, 0), sessions=False)), took=100) == [
        (0, 0, None),
        (1, 5, None),
        (2, 5, None),
    ]


def test_a_turn_waits_for_its_parent_and_its_user() -> None:
    rows = ((0, -1, 0), (10, 0, 3), (12, -1, 0), (20, 1, 7))
    assert play(Schedule(trace(*rows)), took=50) == [(0, 0, None), (2, 12, None), (1, 53, 10), (3, 110, 20)]
    assert play(Schedule(trace(*rows), open_loop=True), took=50) == [(i, rows[i][0], None) for i in range(4)]


def test_sub_agents_run_beside_each_other() -> None:
    sent = play(Schedule(trace((0, -1, 0), (1, 0, 0), (2, 0, 4))), took=10)
    assert sent == [(0, 0, None), (1, 10, 1), (2, 14, 2)]


def test_nothing_is_due_after_the_window() -> None:
    schedule = Schedule(trace((0, -1, 0), (10, 0, 0), (20, 1, 0), (30, -1, 0)), end=30)
    assert play(schedule, took=15) == [(0, 0, None), (1, 15, 10)]
    assert schedule.sent == 2


def test_a_fixed_number_in_flight_sends_in_the_traces_order() -> None:
    sent = play(Schedule(trace(*[(1000 * i, -1, 0) for i in range(5)], sessions=False), concurrency=2), took=10)
    assert sent == [(0, 0, None), (1, 0, None), (2, 10, None), (3, 10, None), (4, 20, None)]


def test_a_session_keeps_its_slot_unless_its_user_thinks() -> None:
    sent = play(Schedule(trace((0, -1, 0), (1, 0, 0), (2, -1, 0), (3, -1, 0)), concurrency=1), took=10)
    assert [index for index, _, _ in sent] == [0, 1, 2, 3]
    sent = play(Schedule(trace((0, -1, 0), (1, 0, 5), (2, -1, 0), (3, -1, 0)), concurrency=1), took=10)
    assert [index for index, _, _ in sent] == [0, 2, 1, 3]


rows = st.lists(st.tuples(st.integers(0, 1000), st.integers(-1, 30), st.integers(0, 50)), min_size=1, max_size=30)


@given(rows, st.integers(0, 300), st.integers(1, 5) | st.none(), st.integers(1, 1500) | st.none())
def test_each_request_once_parents_first_and_never_too_many(
    drawn: list[tuple[int, int, int]], took: int, concurrency: int | None, end: int | None
) -> None:
    drawn.sort()
    made = trace(*[(due, parent if parent < i else -1, think) for i, (due, parent, think) in enumerate(drawn)])
    log = play(Schedule(made, end=end, concurrency=concurrency), took)
    sent = {index: due for index, due, _ in log}
    assert len(sent) == len(log)
    if end is None:
        assert len(log) == len(drawn)
    else:
        assert all(due < end for due in sent.values())
    for request in made:
        if request.parent >= 0 and request.index in sent:
            assert sent[request.index] >= sent[request.parent] + took + request.think
    if concurrency is not None and took:
        events = sorted([(due, 1) for due in sent.values()] + [(due + took, -1) for due in sent.values()])
        level = 0
        for _, step in events:
            level += step
            assert level <= concurrency
    dues = [due for _, due, _ in log]
    assert all(a <= b for a, b in pairwise(dues))


def test_shares_add_up() -> None:
    for total in (1, 7, 8, 100):
        for workers in (1, 2, 3, 7):
            parts = [share(total, worker, workers) for worker in range(workers)]
            assert sum(parts) == total
            assert max(parts) - min(parts) <= 1


def test_a_turn_waits_for_the_end_of_its_parents_body_too() -> None:
    schedule = Schedule(trace((0, -1, 0), (1, 0, 5), (2, 0, 50)))
    (parent,) = schedule.pop(0)
    schedule.finished(parent.request, 100, free=120)
    assert [(due.request.index, due.due) for due in schedule.pop(1000)] == [(1, 120), (2, 150)]


def test_a_slot_is_free_when_the_answers_body_has_ended() -> None:
    """The dispatcher: what the server kept open is no lateness of the client's."""
    target, requests = Target("a", "http://127.0.0.1:9"), trace(*[(0, -1, 0)] * 3, sessions=False)
    arm = Arm(target, plans.step_file(0), 3, concurrency=1)
    clock, exchanges = Clock(), []

    class Server:
        def start(self, call: Call, done: Done) -> None:
            exchanges.append(exchange := Exchange(call, started=clock.now(), outcome=Outcome.OK))
            exchange.done, exchange.body_end = clock.now() + 1_000_000, clock.now() + 40_000_000
            gevent.spawn_later(0.04, done, exchange)

        def stop(self, outcome: Outcome) -> None: ...

    lane = Lane(arm, Schedule(requests, concurrency=1), PromptBuffer(requests, Prompts(requests, seed=0, salt="")))
    lane.client = Server()
    Dispatcher(Step("s", (arm,)), [lane], clock, clock.now(), lambda exchange: None).run()
    assert [after.due for after in exchanges[1:]] == [before.body_end for before in exchanges[:-1]]
