"""The pulse of a hub's loop: when it last polled, how late it runs, and what the process counts.

Theory of operation. A read whose socket was not readable at one poll and is at the next arrived in between. So a
`prepare` watcher notes the instant just before each poll, and the instant before the poll before the current one is the
lower end of every read's bracket. Noted before the poll, not after: a process preempted between the two would claim a
bracket that is too narrow. Where the loop is busy polls don't block and the two agree; where it is idle the bracket is
wider, and reads that hold one event don't need it. (libev takes 64 ready sockets a poll, and twice as many each time
that this was not enough: in a process's very first burst a few sockets wait for a second poll.)

A coarse timer shows stalls: how much its interval is longer than asked.

One pulse serves all targets of a hub; a process has one hub per thread, normally one.
"""

from __future__ import annotations

import _socket
import gc
import resource
import socket
import sys
from contextlib import suppress
from typing import Any, Literal, Protocol

import gevent

from .. import clock
from ..timerfd import ClockAlarm
from .diagnostics import ClockStep, Diagnostics

TICK = 0.05  # seconds
OFTEN = 0.001  # seconds between polls where brackets must be narrow
LONG = 10_000_000  # a stall worth counting, nanoseconds
SPAN = 1_000_000_000  # ns over which the busiest moment is counted
UNSEEN = 2_000_000  # ns: a step that a tick alone believes in (slewing makes 25 us a tick)
TOLD = 20_000  # ns: the same when the kernel says that the clock was set


# Linux; the socket module doesn't have it. Its message is a timespec.
SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None


def stamped(sock: _socket.socket) -> None:
    """Asks the kernel for the receive time of what the socket brings; without it reads are counted as unstamped."""
    if SO_TIMESTAMPNS is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


class Listener(Protocol):
    """A client that is open in this process."""

    clock: clock.Clock

    def sweep(self) -> None:
        """Called once a tick: looks at the exchanges whose time limits have come."""

    def stepped(self) -> None:
        """Called when the clock was stepped, once `clock` has followed."""


class Pulse:
    """Instants are CLOCK_REALTIME in nanoseconds since the epoch; `before` is the lower end of the current reads."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.loop = hub.loop
        self.before = self._latest = clock.realtime_ns()
        # The kernel begins to take times some while after the first socket asks, and stops with the last: this one is
        # the first, and stays, so that the run's first answers have theirs.
        self.keeper = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        stamped(self.keeper)
        self.reads = self.unstamped = self.fast = 0
        self.tokens = 0  # token-bearing events, however few reads brought them
        self.streams = self.most_streams = 0  # exchanges open now, and at most
        self.most_tokens = 0.0  # a second, over SPAN
        self.opened = self.reused = self.reconnected = self.faults = 0
        self.stalls = self.longest_stall = 0
        self.listeners: dict[Listener, None] = {}
        self.watch = clock.Steps()
        self.steps: list[ClockStep] = []
        self._ticked = clock.monotonic_ns()
        self._started = self._ticked
        self._span = (self._started, 0)  # when the current span began, and the tokens until then
        self._cpu = clock.cpu_ns()
        self._prepare = self.loop.prepare(ref=False, priority=self.loop.MINPRI)  # after gevent's own, next to the poll
        self._prepare.start(self._polling)
        self._timer = self.loop.timer(TICK, TICK, ref=False)
        self._timer.start(self._tick)
        self._often: Any = None
        self._alarm = ClockAlarm(self.loop, lambda: self._look(TOLD))

    def _polling(self) -> None:
        self.before = self._latest
        self._latest = clock.realtime_ns()

    def poll_often(self) -> None:
        """Polls each millisecond from now on, however idle the loop is. Brackets begin at a poll, and reads without a
        kernel time have nothing better."""
        if self._often is None:
            self._often = self.loop.timer(OFTEN, OFTEN, ref=False)
            self._often.start(lambda: None)

    def opened_stream(self) -> None:
        self.streams += 1
        if self.streams > self.most_streams:
            self.most_streams = self.streams

    def _tick(self) -> None:
        now = clock.monotonic_ns()
        stall = now - self._ticked - int(TICK * 1e9)
        self._ticked = now
        if stall > self.longest_stall:
            self.longest_stall = stall
        if stall > LONG:
            self.stalls += 1
        if now - self._span[0] >= SPAN:
            self.most_tokens = self._busiest(now)
            self._span = (now, self.tokens)
        self._look(UNSEEN)
        for listener in list(self.listeners):
            listener.sweep()

    def _busiest(self, now: int) -> float:
        """The most tokens in a second so far; a span that isn't over counts as a whole one."""
        began, tokens = self._span
        return max(self.most_tokens, (self.tokens - tokens) * 1e9 / max(now - began, SPAN))

    def _look(self, least: int) -> None:
        """Was the clock stepped? Then the runs' clocks follow, and what is open is marked."""
        step = self.watch.look(least)
        if not step:
            return
        clocks = {id(listener.clock): listener.clock for listener in self.listeners}
        at = min((known.now() for known in clocks.values()), default=0)
        self.steps.append(ClockStep(at * 1e-9, step * 1e-9))
        for known in clocks.values():
            known.follow(step)
        self.before, self._latest = self.before + step, self._latest + step
        for listener in list(self.listeners):
            listener.stepped()

    def diagnostics(self) -> Diagnostics:
        return Diagnostics(
            time_source=_source(self.reads, self.unstamped),
            reads=self.reads,
            reads_unstamped=self.unstamped,
            reads_fast=self.fast,
            most_tokens_per_s=self._busiest(clock.monotonic_ns()),
            most_streams=self.most_streams,
            connections_opened=self.opened,
            connections_reused=self.reused,
            reconnected=self.reconnected,
            internal_faults=self.faults,
            stalls_over_10ms=self.stalls,
            longest_stall_s=self.longest_stall * 1e-9,
            cpu_s=(clock.cpu_ns() - self._cpu) * 1e-9,
            wall_s=(clock.monotonic_ns() - self._started) * 1e-9,
            open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            collections=COLLECTIONS.count,
            collections_s=COLLECTIONS.total * 1e-9,
            longest_collection_s=COLLECTIONS.longest * 1e-9,
            clock_steps=tuple(self.steps),
        )


def _source(reads: int, unstamped: int) -> Literal["kernel", "user", "mixed"]:
    if not unstamped:
        return "kernel"
    return "user" if unstamped == reads else "mixed"


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
PULSES: list[Pulse] = []


def pulse() -> Pulse:
    """The pulse of the current hub."""
    hub = gevent.get_hub()
    for known in PULSES:
        if known.hub is hub and known.loop is hub.loop:
            return known
    if COLLECTIONS.note not in gc.callbacks:
        gc.callbacks.append(COLLECTIONS.note)
    PULSES.append(Pulse(hub))
    return PULSES[-1]
