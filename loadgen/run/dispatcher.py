"""The dispatcher: sends what the agendas of a phase's legs say, at the instant they say it.

One greenlet waits on a kernel timer that is set to the earliest due instant of all legs. Whatever changes that instant
(an exchange that ends, the run's end) sets the timer anew, so the timer is the only thing that the dispatcher waits
for. Instants are compared on CLOCK_MONOTONIC: a step of the wall clock must not send anything early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import gevent

from targets.clock import Clock, monotonic_ns
from targets.exchange import Exchange, Outcome
from targets.target import Call, Client

from ..pacing import leaves
from ..plan import Arm, Step
from .prompt_buffer import PromptBuffer
from .schedule import Due, Schedule
from .timer import Timer

log = logging.getLogger("phaseload")

HAND_BACK = 5_000_000_000  # nanoseconds that targets have to hand back what was cut


@dataclass
class Lane:
    """A leg at work: its agenda, its prompts and its target."""

    leg: Arm
    agenda: Schedule
    ahead: PromptBuffer
    target: Client
    done: int = 0
    failed: int = 0
    open: dict[int, tuple[Due, Call]] = field(default_factory=dict)
    retrying: dict[int, gevent.Greenlet[..., None]] = field(default_factory=dict)


class Dispatcher:
    """Runs one phase of one worker. `finished` gets every exchange, from an ordinary greenlet.

    `start` is the phase's first instant, nanoseconds from the run's start; `seed` says which users leave early.
    """

    def __init__(
        self,
        phase: Step,
        lanes: list[Lane],
        clock: Clock,
        start: int,
        finished: Callable[[Exchange], None],
        seed: int = 0,
    ) -> None:
        self.phase, self.lanes, self.start, self.seed = phase, lanes, start, seed
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
                if deadline is None and all(lane.agenda.exhausted(self.now()) for lane in self.lanes):
                    deadline = self.now() + round(self.phase.drain_s * 1e9)
                if deadline is not None and (self.now() >= deadline or not self.in_flight):
                    break
                self._sleep(deadline)
        finally:
            self._stopped = True
            self._cut()
            self._timer.close()

    def stop(self) -> None:
        """Ends the phase early: what is open is cut."""
        if not self._stopped:
            self._stopped = True
            self._timer.set(1)

    def now(self) -> int:
        """Nanoseconds from the phase's start."""
        return monotonic_ns() - self._zero

    @property
    def in_flight(self) -> int:
        return sum(lane.agenda.in_flight for lane in self.lanes)

    def idle(self) -> int:
        """Nanoseconds until something is due."""
        due = self._next_due()
        return 1 << 62 if due is None else due - self.now()

    def _next_due(self) -> int | None:
        return min((due for lane in self.lanes if (due := lane.agenda.next_due()) is not None), default=None)

    def _sleep(self, deadline: int | None) -> None:
        """Until something is due or decided: an exchange that ends sets the timer itself."""
        wakes = [instant for instant in (self._next_due(), deadline or self.phase.end_ns) if instant is not None]
        wake = min(wakes, default=None)
        self._timer.set(None if wake is None else self._zero + wake)
        self._timer.wait()

    def _send_due(self) -> None:
        now = self.now()
        for lane in self.lanes:
            for entry in lane.agenda.pop(now):
                self._send(lane, entry)

    def _send(self, lane: Lane, entry: Due) -> None:
        counted = entry.due >= self.phase.warmup_ns
        ask = lane.ahead.ask(entry, start=self.start, step=self.phase.name, counted=counted)
        if lane.leg.leave:
            ask = replace(ask, leave_after=leaves(self.seed, ask.index, lane.leg.leave, ask.output_tokens))
        self._start(lane, entry, ask)

    def _start(self, lane: Lane, entry: Due, ask: Call) -> None:
        lane.retrying.pop(ask.index, None)
        lane.open[ask.index] = entry, ask
        lane.target.start(ask, lambda exchange: self._over(lane, exchange))

    def _over(self, lane: Lane, exchange: Exchange) -> None:
        entry, ask = lane.open.pop(exchange.index)
        try:
            self._finished(exchange)
        except Exception as error:  # a fault of ours must not leave the request in flight for ever
            exchange.outcome, exchange.error = Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}"
            log.exception("request %d could not be recorded properly", exchange.index)
        ended = exchange.done if exchange.done is not None else self.start + self.now()
        if not self._stopped and ask.attempt <= lane.leg.retries and worth_retrying(exchange):
            pause = exchange.retry_after if exchange.retry_after is not None else 0.5 * 2 ** (ask.attempt - 1)
            again = replace(ask, due=ended + round(pause * 1e9), attempt=ask.attempt + 1)
            lane.retrying[ask.index] = gevent.spawn_later(pause, self._start, lane, entry, again)
            return
        lane.done += 1
        lane.failed += not exchange.ok
        lane.agenda.finished(entry.request, ended - self.start)
        if not self._stopped:
            self._timer.set(1)

    def _cut(self) -> None:
        """Ends what is open; the targets hand those exchanges back like all others."""
        for lane in self.lanes:
            for index, greenlet in lane.retrying.items():
                greenlet.kill()
                lane.agenda.in_flight -= 1
                log.info("request %d was not tried again: the run ended first", index)
            lane.target.stop(Outcome.CUT)
        patience = monotonic_ns() + HAND_BACK
        while self.in_flight and monotonic_ns() < patience:
            gevent.sleep(0.005)


def worth_retrying(exchange: Exchange) -> bool:
    """Another try may end better: the server was full, or not there, or failed of its own."""
    server_failed = exchange.status is not None and exchange.status >= 500 and exchange.outcome is Outcome.HTTP_ERROR
    return server_failed or exchange.outcome in (Outcome.RATE_LIMITED, Outcome.REFUSED)
