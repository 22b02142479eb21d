"""Clock steps: seen, followed, and what was open across one is marked."""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from targets.client import loop
from targets.client.http_client import diagnostics
from targets.client.loop import ClockAlarm
from targets.clock import Clock, Steps, apart
from targets.exchange import Outcome
from targets.target import Limits

SECOND = 1_000_000_000


def test_a_socket_keeps_the_kernel_taking_receive_times() -> None:
    assert loop.current().keeper.getsockopt(socket.SOL_SOCKET, 35) == 1


class Injected:
    """A CLOCK_REALTIME that a test can step."""

    def __init__(self) -> None:
        self.step = 0

    def __call__(self) -> int:
        return time.time_ns() + self.step


@pytest.fixture
def injected() -> Iterator[Injected]:
    """The process's watch looks at the injected clock."""
    clock, known = Injected(), loop.current()
    kept, known.watch = known.watch, Steps(clock)
    yield clock
    known.watch = kept
    known.steps.clear()


def test_a_step_is_seen_once_and_slewing_never() -> None:
    clock = Injected()
    steps = Steps(clock)
    assert steps.look(1_000_000) == 0
    clock.step = SECOND
    assert abs(steps.look(1_000_000) - SECOND) < 1_000_000
    assert steps.look(1_000_000) == 0
    for _ in range(100):
        clock.step += 20_000
        assert steps.look(1_000_000) == 0
    clock.step -= 5 * SECOND
    assert abs(steps.look(1_000_000) + 5 * SECOND) < 1_000_000


def test_preemption_between_two_reads_is_no_step() -> None:
    """Most pairs of reads are a whole second apart: the one that isn't counts."""
    calls = iter(range(1000))

    def monotonic() -> int:
        call = next(calls)
        return (call + 10 * (call // 2 % 3 != 2)) * 1000 if call % 2 else call * 1000

    assert apart(lambda: 7_000_000, monotonic) <= 7_000_000


def test_the_runs_clock_follows() -> None:
    clock = Clock()
    before, timer = clock.now(), clock.monotonic(5 * SECOND)
    clock.follow(SECOND)
    assert clock.now() - before < 0, "the real clock was not stepped in this test: the run's is back by as much"
    assert clock.monotonic(5 * SECOND) == timer, "timers stay where they are"
    assert abs(clock.drift() + SECOND) < 1_000_000


def test_exchanges_open_across_a_step_are_marked(truth: Any, caller: Any, injected: Injected) -> None:
    one = caller(truth.url, extra_body={"truth": {"ttft_s": 0.02, "gap_s": 0.01, "tokens": 30}})
    before = one.ask(prompt="before")
    one.start(prompt="across")
    gevent.sleep(0.1)
    injected.step = SECOND
    across = one.wait()[-1]
    assert [round(step.step_s) for step in diagnostics().clock_steps] == [1]
    after = one.ask(prompt="after")
    assert [e.stepped for e in (before, across, after)] == [False, True, False]
    assert {e.outcome for e in (before, across, after)} == {Outcome.OK}
    assert 0.02 < after.ttft < 5


@pytest.mark.parametrize("hours", [1, -1])
def test_a_step_ends_nothing_by_a_time_limit(truth: Any, caller: Any, injected: Injected, hours: int) -> None:
    """Limits of seconds count from the step on. (The run's clock follows the injected step and the kernel's stamps
    don't: to the exchange that is open the clock jumps by an hour, the other way.)"""
    one = caller(
        truth.url, limits=Limits(silence_timeout=5), extra_body={"truth": {"ttft_s": 0.1, "gap_s": 0.01, "tokens": 30}}
    )
    one.start()
    gevent.sleep(0.2)
    injected.step = hours * 3600 * SECOND
    assert one.wait()[0].outcome is Outcome.OK


class Timex(ctypes.Structure):
    """struct timex (adjtimex(2)): the fields that are used, and room for the others."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("before", ctypes.c_long * 8),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
        ("after", ctypes.c_char * 200),
    )


def test_the_kernel_tells_when_the_clock_is_set() -> None:
    """ADJ_SETOFFSET by one nanosecond. Needs the right to set the clock."""
    told: list[int] = []
    alarm = ClockAlarm(gevent.get_hub().loop, lambda: told.append(1))
    gevent.sleep(0.01)
    assert told == []
    timex = Timex(modes=0x0100 | 0x2000, nanoseconds=1)  # ADJ_SETOFFSET | ADJ_NANO
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        pytest.skip("setting the clock is not allowed here")
    gevent.sleep(0.05)
    assert told == [1]
    assert alarm is not None
