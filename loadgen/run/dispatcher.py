"""The dispatcher: sends each request of a step's arms at the instant that its schedule gives.

One greenlet waits on a kernel timer that is set to the earliest due instant of all arms. Whatever changes that instant
(an exchange that ends, the run's end) sets the timer anew, so the timer is the only thing that the dispatcher waits
for. Instants are compared on CLOCK_MONOTONIC: a step of the wall clock must not send anything early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gevent

from targets.clock import Clock, monotonic_ns
from targets.exchange import Call, Client, Exchange, Outcome
from targets.linux import Timerfd
from traces.request import NS_PER_S

from ..plan import Arm, Step
from .prompt_buffer import PromptBuffer
from .schedule import Due, Schedule, leaves_after

log = logging.getLogger("phaseload")

READ = 1  # an io watcher's event
HAND_BACK_NS = 5_000_000_000  # that clients have to hand back what was cut


class Timer(Timerfd):
    """An alarm on CLOCK_MONOTONIC, exact to tens of microseconds. `set` may be called by any greenlet, `wait` by one.

    gevent.sleep is late by 0.7 ms at the median, because libev waits in whole milliseconds. Here an io watcher wakes
    the waiting greenlet in the turn of the loop in which the alarm goes off.
    """

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


@dataclass
class Lane:
    """An arm at work: its schedule, its prompts and its client."""

    arm: Arm
    schedule: Schedule
    prompts: PromptBuffer
    client: Client
    done: int = 0
    failed: int = 0
    retrying: dict[int, gevent.Greenlet[..., None]] = field(default_factory=dict)


class Dispatcher:
    """Runs one step of one worker. `finished` gets every exchange, from an ordinary greenlet.

    `start` is the step's first instant, nanoseconds from the run's start; `seed` decides which users leave early.
    """

    def __init__(
        self,
        step: Step,
        lanes: list[Lane],
        clock: Clock,
        start: int,
        finished: Callable[[Exchange], None],
        seed: int = 0,
    ) -> None:
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
            request=request,
            target=arm.target.name,
            due=self.start + due.due,
            prompt=prompt.prompt,
            history=prompt.history,
            step=self.step.name,
            planned=None if due.planned is None else self.start + due.planned,
            counted=due.due >= self.step.warmup_ns,
            leave_after=leaves_after(self.seed, request, arm.leave) if arm.leave else None,
        )
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
        lane.schedule.finished(request, ended - self.start)
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
