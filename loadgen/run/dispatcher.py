"""The dispatcher: sends each request of a step's arms at the instant that its schedule gives.

One greenlet waits on a kernel timer that is set to the earliest due instant of all arms. Whatever changes that instant
(an exchange that ends, the run's end) sets the timer anew, so the timer is the only thing that the dispatcher waits
for. Instants are compared on CLOCK_MONOTONIC: a step of the wall clock must not send anything early.

Prompts are ready before they are due: writing one of 100,000 tokens takes milliseconds, and a body that is written at
the due instant makes the next request late. They are written in the order of the trace, as many as the budget holds
before the step starts, the rest by a greenlet that works only while no request is about to be due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import gevent

from targets.clock import Clock, monotonic_ns
from targets.exchange import Call, Client, Exchange, Outcome
from targets.linux import Timerfd
from traces.prompts import Prompts
from traces.request import NS_PER_S
from traces.trace import Request, Trace

from ..plan import Arm, Step
from .schedule import Due, Schedule, leaves_after

log = logging.getLogger("phaseload")

READ = 1  # an io watcher's event
HAND_BACK_NS = 5_000_000_000  # that clients have to hand back what was cut
BUDGET = 64_000_000  # characters held ready
ID_SIZE = 8  # bytes of a token id in a list (small integers are shared, its body text is about as long)
CALM = 3_000_000  # nanoseconds before the next due instant within which nothing is written


class Timer(Timerfd):
    """An alarm on CLOCK_MONOTONIC, exact to tens of microseconds. `set` may be called by any greenlet, `wait` by one.
    gevent.sleep is late by 0.7 ms at the median, because libev waits in whole milliseconds. Here an io watcher wakes
    the waiting greenlet in the turn of the loop in which the alarm goes off."""

    def __init__(self) -> None:
        super().__init__()
        loop: Any = gevent.get_hub().loop
        self._watcher = loop.io(self.fd, READ, priority=loop.MAXPRI)  # before the reads of the same turn

    def wait(self) -> None:
        gevent.get_hub().wait(self._watcher)
        self.clear()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        super().close()


class Prompt(NamedTuple):
    """A request's prompt and its conversation so far, as a Call has them, and what they count in the budget."""

    prompt: str | list[int]
    history: tuple[tuple[str, str], ...]
    size: int


class PromptBuffer:
    """The prompts of one worker's requests of one arm: texts, or token ids below `vocabulary`."""

    def __init__(self, trace: Trace, prompts: Prompts, vocabulary: int | None = None, budget: int = BUDGET) -> None:
        self.unprepared = 0  # prompts that were not ready when they were due
        self._prompts, self._vocabulary, self._budget = prompts, vocabulary, budget
        self._ready: dict[int, Prompt] = {}
        self._taken: set[int] = set()  # written on demand, before their turn came
        self._held = 0
        self._rows = iter(trace)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def fill(self) -> None:
        """Before the step: as much as the budget holds."""
        while self._held < self._budget and self._next():
            gevent.sleep(0)  # heartbeats must go on

    def start(self, idle: Callable[[], int]) -> None:
        """Goes on while the step runs; `idle` gives the nanoseconds that are left until something is due."""
        self._greenlet = gevent.spawn(self._refill, idle)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def take(self, request: Request) -> Prompt:
        """The prompt of a request that is due, written now where it isn't ready."""
        prompt = self._ready.pop(request.index, None)
        if prompt is None:
            self.unprepared += 1
            self._taken.add(request.index)
            return self._write(request)
        self._held -= prompt.size
        return prompt

    def _refill(self, idle: Callable[[], int]) -> None:
        more = True
        while more:
            if self._held < self._budget and idle() > CALM:
                more = self._next()
                gevent.sleep(0)
            else:
                gevent.sleep(0.002)

    def _next(self) -> bool:
        request = next(self._rows, None)
        if request is None:
            return False
        if request.index in self._taken:
            self._taken.remove(request.index)
        else:
            self._ready[request.index] = prompt = self._write(request)
            self._held += prompt.size
        return True

    def _write(self, request: Request) -> Prompt:
        if self._vocabulary is not None:
            return Prompt(self._prompts.ids(request, self._vocabulary), (), ID_SIZE * request.prompt_tokens)
        text, history = self._prompts.text(request), tuple(self._prompts.history(request))
        return Prompt(text, history, len(text) + sum(len(message) for _, message in history))


@dataclass
class Lane:
    """An arm at work: its schedule, its prompts and its client."""

    arm: Arm
    schedule: Schedule
    prompts: PromptBuffer
    client: Client = field(init=False)
    done: int = 0
    failed: int = 0
    retrying: dict[int, gevent.Greenlet[..., None]] = field(default_factory=dict)


class Dispatcher:
    """Runs one step of one worker. `finished` gets every exchange, from an ordinary greenlet. `start` is the step's
    first instant, nanoseconds from the run's start; `seed` decides which users leave early."""

    def __init__(
        self, step: Step, lanes: list[Lane], clock: Clock, start: int, finished: Callable[[Exchange], None],
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.step, self.lanes, self.start, self.seed = step, lanes, start, seed
        self._zero = clock.monotonic(start)
        self._finished = finished
        self._timer = Timer()
        self._stopped = False

    def run(self) -> None:
        """Until every answer is in, or the time for it is over; then what is open is cut."""
        deadline = None
        try:
            while not self._stopped:
                self._send_due()
                if deadline is None and all(lane.schedule.exhausted(self.now()) for lane in self.lanes):
                    deadline = self.now() + round(self.step.drain_s * NS_PER_S)
                if deadline is not None and (self.now() >= deadline or not self.in_flight):
                    break
                self._sleep(deadline)
        finally:
            self._stopped = True
            self._cut()
            self._timer.close()

    def stop(self) -> None:
        """Ends the step early: what is open is cut."""
        if not self._stopped:
            self._stopped = True
            self._timer.set(1)

    def now(self) -> int:
        """Nanoseconds from the step's start."""
        return monotonic_ns() - self._zero

    @property
    def in_flight(self) -> int:
        return sum(lane.schedule.in_flight for lane in self.lanes)

    def idle(self) -> int:
        """Nanoseconds until something is due."""
        due = self._next_due()
        return 1 << 62 if due is None else due - self.now()

    def _next_due(self) -> int | None:
        return min((due for lane in self.lanes if (due := lane.schedule.next_due()) is not None), default=None)

    def _sleep(self, deadline: int | None) -> None:
        """Until something is due or decided: an exchange that ends sets the timer itself."""
        wakes = [instant for instant in (self._next_due(), deadline or self.step.end_ns) if instant is not None]
        wake = min(wakes, default=None)
        self._timer.set(None if wake is None else self._zero + wake)
        self._timer.wait()

    def _send_due(self) -> None:
        now = self.now()
        for lane in self.lanes:
            for due in lane.schedule.pop(now):
                self._send(lane, due)

    def _send(self, lane: Lane, due: Due) -> None:
        request, arm = due.request, lane.arm
        prompt = lane.prompts.take(request)
        call = Call(
            request=request, target=arm.target.name, due=self.start + due.due, prompt=prompt.prompt,
            history=prompt.history, step=self.step.name,
            planned=None if due.planned is None else self.start + due.planned,
            counted=due.due >= self.step.warmup_ns,
            leave_after=leaves_after(self.seed, request, arm.leave) if arm.leave else None,
        )  # fmt: skip
        self._start(lane, call)

    def _start(self, lane: Lane, call: Call) -> None:
        lane.retrying.pop(call.request.index, None)
        lane.client.start(call, lambda exchange: self._over(lane, exchange))

    def _over(self, lane: Lane, exchange: Exchange) -> None:
        call, request = exchange.call, exchange.call.request
        try:
            self._finished(exchange)
        except Exception as error:  # a fault of ours must not leave the request in flight for ever
            exchange.outcome, exchange.error = Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}"
            log.exception("request %d could not be recorded properly", request.index)
        ended = exchange.done if exchange.done is not None else self.start + self.now()
        if not self._stopped and call.attempt <= lane.arm.retries and worth_retrying(exchange):
            pause_s = exchange.retry_after if exchange.retry_after is not None else 0.5 * 2 ** (call.attempt - 1)
            again = replace(call, due=ended + round(pause_s * NS_PER_S), attempt=call.attempt + 1)
            lane.retrying[request.index] = gevent.spawn_later(pause_s, self._start, lane, again)
            return
        lane.done += 1
        lane.failed += not exchange.ok
        free = exchange.body_end if exchange.body_end is not None else ended
        lane.schedule.finished(request, ended - self.start, free - self.start)
        if not self._stopped:
            self._timer.set(1)

    def _cut(self) -> None:
        """Ends what is open; the clients hand those exchanges back like all others."""
        for lane in self.lanes:
            for index, greenlet in lane.retrying.items():
                greenlet.kill()
                lane.schedule.in_flight -= 1
                log.info("request %d was not tried again: the run ended first", index)
            lane.client.stop(Outcome.CUT)
        patience = monotonic_ns() + HAND_BACK_NS
        while self.in_flight and monotonic_ns() < patience:
            gevent.sleep(0.005)


def worth_retrying(exchange: Exchange) -> bool:
    """Another try may end better: the server was full, or not there, or failed of its own."""
    server_failed = exchange.status is not None and exchange.status >= 500 and exchange.outcome is Outcome.HTTP_ERROR
    return server_failed or exchange.outcome in (Outcome.RATE_LIMITED, Outcome.REFUSED)
