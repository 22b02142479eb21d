"""The client's side of an event loop: when it last polled, how late it runs, and what the process counts.

Theory of operation. A read whose socket was not readable at one poll and is at the next arrived in between. So a
`prepare` watcher notes the instant just before each poll, and the instant before the poll before the current one is the
lower end of every read's bracket. Noted before the poll, not after: a process preempted between the two would claim a
bracket that is too narrow. Where the loop is busy polls don't block and the two agree; where it is idle the bracket is
wider, and reads that hold one event don't need it. (libev takes 64 ready sockets a poll, and twice as many each time
that this was not enough: in a process's very first burst a few sockets wait for a second poll.)

A coarse timer shows stalls: by how much its interval is longer than set.

One `Loop` serves all clients of a hub; a process has one hub per thread, normally one.
"""

from __future__ import annotations

import _socket
import gc
import resource
import socket
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from traces.request import NS_PER_S

from .. import clock
from ..exchange import ClockStep, Diagnostics
from ..linux import CANCEL_ON_SET, CLOCK_REALTIME, Timerfd, kept_waiting, stamp_reads

TICK_S = 0.05
OFTEN_S = 0.001  # between polls where brackets must be narrow
STALL_NS = 10_000_000  # that is worth counting
SPAN_NS = 1_000_000_000  # over which the busiest moment is counted
TICK_STEP_NS = 2_000_000  # a clock step that a tick alone believes in (slewing makes 25 us a tick)
ALARM_STEP_NS = 20_000  # the same when the kernel reports that the clock was set
NEVER_NS = (1 << 33) * NS_PER_S  # two centuries and more
COUNTS = (  # of a loop and of its diagnostics
    "reads", "reads_unstamped", "reads_fast", "most_streams", "connections_opened", "connections_reused", "reconnected",
    "internal_faults", "stalls_over_10ms",
)  # fmt: skip


class Listener(Protocol):
    """A client that is open in this process."""

    clock: clock.Clock

    def sweep(self) -> None: ...  # called once a tick: looks at the exchanges whose time limits have come

    def stepped(self) -> None: ...  # called when the clock was stepped, once `clock` has followed


class Loop:
    """Instants are CLOCK_REALTIME in nanoseconds since the epoch; `before` is the lower end of the current reads."""

    def __init__(self, hub: Any) -> None:
        self.hub, self.ev = hub, hub.loop
        self.before = self._latest = clock.realtime_ns()
        # The kernel begins to take times some while after the first socket asks, and stops with the last: this one is
        # the first, and stays, so that the run's first answers have theirs.
        self.keeper = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        stamp_reads(self.keeper)
        self.reads = self.reads_unstamped = self.reads_fast = 0
        self.tokens = 0  # token-bearing events, however few reads brought them
        self.streams = self.most_streams = 0  # exchanges open now, and at most
        self.most_tokens = self.most_core = 0.0  # a second, over SPAN
        self.connections_opened = self.connections_reused = self.reconnected = self.internal_faults = 0
        self.stalls_over_10ms = self.longest_stall = 0
        self.listeners: dict[Listener, None] = {}
        self.watch = clock.Steps()
        self.steps: list[ClockStep] = []
        self._ticked = clock.monotonic_ns()
        self._started = self._ticked
        self._cpu, self._waited = clock.cpu_ns(), kept_waiting()
        self._span = (self._started, 0, self._cpu)  # when the current span began, and tokens and CPU until then
        self._prepare = self.ev.prepare(ref=False, priority=self.ev.MINPRI)  # after gevent's own, next to the poll
        self._prepare.start(self._polling)
        self._timer = self.ev.timer(TICK_S, TICK_S, ref=False)
        self._timer.start(self._tick)
        self._often: Any = None
        self._alarm = ClockAlarm(self.ev, lambda: self._look(ALARM_STEP_NS))

    def _polling(self) -> None:
        self.before = self._latest
        self._latest = clock.realtime_ns()

    def poll_often(self) -> None:
        """Polls each millisecond from now on, however idle the loop is. Brackets begin at a poll, and reads without a
        kernel time have nothing better."""
        if self._often is None:
            self._often = self.ev.timer(OFTEN_S, OFTEN_S, ref=False)
            self._often.start(lambda: None)

    def _tick(self) -> None:
        now = clock.monotonic_ns()
        stall = now - self._ticked - round(TICK_S * NS_PER_S)
        self._ticked = now
        self.longest_stall = max(self.longest_stall, stall)
        if stall > STALL_NS:
            self.stalls_over_10ms += 1
        if now - self._span[0] >= SPAN_NS:
            self.most_tokens, self.most_core = self._busiest(now)
            self._span = (now, self.tokens, clock.cpu_ns())
        self._look(TICK_STEP_NS)
        for listener in list(self.listeners):
            listener.sweep()

    def _busiest(self, now: int) -> tuple[float, float]:
        """The most tokens, and the most of a core, in a second so far; a span that isn't over counts as a whole one."""
        began, tokens, cpu = self._span
        span_s = max(now - began, SPAN_NS) / NS_PER_S
        core = (clock.cpu_ns() - cpu) / NS_PER_S / span_s
        return max(self.most_tokens, (self.tokens - tokens) / span_s), max(self.most_core, core)

    def _look(self, least: int) -> None:
        """Was the clock stepped? Then the runs' clocks follow, and what is open is marked."""
        step = self.watch.look(least)
        if not step:
            return
        clocks = {id(listener.clock): listener.clock for listener in self.listeners}
        at = min((run_clock.now() for run_clock in clocks.values()), default=0)
        self.steps.append(ClockStep(at / NS_PER_S, step / NS_PER_S))
        for run_clock in clocks.values():
            run_clock.follow(step)
        self.before, self._latest = self.before + step, self._latest + step
        for listener in list(self.listeners):
            listener.stepped()

    def diagnostics(self) -> Diagnostics:
        unstamped = self.reads_unstamped
        most_tokens, most_core = self._busiest(clock.monotonic_ns())
        return Diagnostics(
            **{count: getattr(self, count) for count in COUNTS},
            time_source="kernel" if not unstamped else "user" if unstamped == self.reads else "mixed",
            most_tokens_per_s=most_tokens, busiest_core=most_core, waited_s=kept_waiting() - self._waited,
            longest_stall_s=self.longest_stall / NS_PER_S, cpu_s=(clock.cpu_ns() - self._cpu) / NS_PER_S,
            wall_s=(clock.monotonic_ns() - self._started) / NS_PER_S,
            open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0], collections=COLLECTIONS.count,
            collections_s=COLLECTIONS.total / NS_PER_S, longest_collection_s=COLLECTIONS.longest / NS_PER_S,
            clock_steps=tuple(self.steps),
        )  # fmt: skip


class ClockAlarm:
    """Calls `changed`, in the hub, each time that the clock was set."""

    def __init__(self, loop: Any, changed: Callable[[], None]) -> None:
        self._changed = changed
        try:
            self._timer = Timerfd(CLOCK_REALTIME)
            self._timer.set(NEVER_NS, CANCEL_ON_SET)
        except (OSError, AttributeError):  # no Linux, or a kernel without it
            return
        self._watcher = loop.io(self._timer.fd, 1, ref=False)
        self._watcher.start(self._ready)

    def _ready(self) -> None:
        try:
            self._timer.clear()
        except OSError:  # ECANCELED: the clock was set
            self._changed()
        self._timer.set(NEVER_NS, CANCEL_ON_SET)


class Collections:
    """Pauses of the garbage collector in this process, nanoseconds."""

    def __init__(self) -> None:
        self.count = self.total = self.longest = 0
        self._began = 0

    def note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = clock.monotonic_ns()
        elif self._began:
            pause = clock.monotonic_ns() - self._began
            self.count, self.total, self.longest = self.count + 1, self.total + pause, max(self.longest, pause)


COLLECTIONS = Collections()
LOOPS: list[Loop] = []


def current() -> Loop:
    """The loop of the current hub."""
    hub = gevent.get_hub()
    for loop in LOOPS:
        if loop.hub is hub and loop.ev is hub.loop:
            return loop
    if COLLECTIONS.note not in gc.callbacks:
        gc.callbacks.append(COLLECTIONS.note)
    LOOPS.append(Loop(hub))
    return LOOPS[-1]
