"""A worker's part of a run: it claims it, runs the steps when the coordinator starts them, and hands its results over.

Theory of operation. The worker runs in a greenlet of its own; Locust's user only holds it, so that however Locust stops
a user (a click, a signal, a lost master), the exchanges that are open are cut, the rows are flushed and the digests
are handed over. It exchanges a few small messages with the coordinator (see `messages`):

    claim -> assignment           what to do: the plan, this worker's part, where the run lies
    ping -> pong                  the offset of this machine's clock to the coordinator's
    fetch -> piece                an arm's requests, where the run's folder is on another machine
    ready -> go                   each step starts for all workers at one instant
    over, progress                for the display and the next step
    rows -> ack, final -> ack     row files (again only from another machine), totals: sent again until acknowledged
    finish                        the coordinator ends the run early
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import gevent
from fastdigest import TDigest
from gevent.event import Event
from gevent.queue import Queue

from reports.store.digests import Digests
from reports.store.row_files import Writer
from reports.store.run_json import WorkerFacts
from targets.client.http_client import diagnostics
from targets.clock import Clock
from targets.exchange import Diagnostics, Exchange
from targets.target import Target
from targets.wire import lenient
from traces.errors import InputError
from traces.prompts import Prompts
from traces.request import NS_PER_S
from traces.transforms import part_of
from traces.words import Corpus, counter

from .. import certificate
from .. import plan as plans
from ..plan import Arm, Plan, Step
from . import messages
from .clients import Clients
from .dispatcher import Dispatcher, Lane, PromptBuffer
from .messages import Assignment, Failed, Final, Finish, Go, LaneProgress, Link, Over, Progress, Ready
from .schedule import Schedule, share

FLUSH = 2.0  # seconds between flushes: what kill -9 loses at most
LAST_TRIES = 5  # of writing what is left at the end, FLUSH apart
PROGRESS = 1.0
SWITCH = 1e-4  # seconds that a thread which writes rows may keep the interpreter from the dispatcher
LIVE_CENTROIDS = 50
# While a step runs only young objects are collected, all of them between steps: with 10,000 streams open a full
# collection stopped the dispatcher for 0.4 s, the longest of the others for 0.03 to 0.05 s.
YOUNG_ONLY = (700, 10, 1_000_000_000)

log = logging.getLogger("phaseload")


class Worker:
    """`send(message)` reaches the coordinator, `fire(exchange)` counts a finished exchange in Locust's tables;
    `allowed`: what it may fill in for a master of another machine (`Target.wants`), None for its own; `clients`: the
    process's own, of which each target gets one."""

    def __init__(
        self, send: Callable[[dict[str, object]], None], fire: Callable[[Exchange], None],
        allowed: Collection[str] | None = None, clients: Clients | None = None,
    ) -> None:  # fmt: skip
        self._clients = clients or Clients()
        self.done = Event()
        self.error: BaseException | None = None
        self._link, self._fire, self._allowed = Link(send), fire, allowed
        self._dispatcher: Dispatcher | None = None
        self._lanes: list[Lane] = []
        self._digests = Digests()
        self._live: defaultdict[tuple[str, str], TDigest] = defaultdict(partial(TDigest, LIVE_CENTROIDS))
        self._counts: Counter[str] = Counter()
        self._diagnostics: Diagnostics | None = None
        self._writer: Writer  # from the assignment on
        self._greenlet = gevent.spawn(self._run)

    def deliver(self, raw: object) -> None:
        """A message of the coordinator's. Never blocks."""
        if isinstance(self._link.deliver(raw), Finish):
            self.finish()

    def finish(self) -> None:
        """Ends the run early: what is open is cut, all that was measured is handed over. Never blocks."""
        self._link.finish()
        if self._dispatcher is not None:
            self._dispatcher.stop()

    # The run.

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error
            self._link.post(Failed(str(error) if isinstance(error, InputError) else repr(error)))
            if not isinstance(error, InputError):
                raise
            log.error("%s", lenient.line(str(error)))
        finally:
            self.done.set()

    def _work(self) -> None:
        sys.setswitchinterval(SWITCH)
        gc.set_threshold(*YOUNG_ONLY)
        assignment = self._link.claim()
        plan = assignment.plan
        if self._allowed is not None:
            _check((arm.target for step in plan.steps for arm in step.arms), self._allowed)
        self._corpus = None if plan.prompts is None else Corpus.expected(plan.prompts)
        self._offset, error = self._link.clock_offset(assignment.boot)
        shared = messages.is_shared(assignment)  # else the rows lie here until the coordinator has them
        with nullcontext(assignment.folder) if shared else TemporaryDirectory(prefix="phaseload-") as folder:
            self._folder = Path(folder)
            self._writer = Writer(self._folder, assignment.part)
            flushing = Flushing(self._writer)
            try:
                for number, step in enumerate(plan.steps):
                    if not self._link.finishing:
                        self._step(plan, number, step, assignment)
            finally:  # also of a step that failed the rows are kept, and nothing of it is left open
                self._clients.release()
                self._counts["failed_writes"] = flushing.close()
            self._hand_over(assignment.part, error, shared=shared)

    def _step(self, plan: Plan, number: int, step: Step, assignment: Assignment) -> None:
        lanes = [self._lane(plan, step, arm, assignment) for arm in step.arms]
        gc.collect()
        gc.freeze()
        self._link.post(Ready(number))
        go = self._link.expect(Go, step=number)
        if go is None:
            return
        clock = Clock(go.origin + self._offset)
        for lane in lanes:
            lane.client = self._clients.take(lane.arm.target, clock, keep_text=plan.tokenizer is not None)
        counting = None if plan.tokenizer is None else TokenCounting(plan.tokenizer, self._record)
        record = self._record if counting is None else counting.put
        self._lanes, self._dispatcher = lanes, Dispatcher(step, lanes, clock, go.start, record, plan.seed)
        reporter = gevent.spawn(_often, PROGRESS, self._report)
        for lane in lanes:
            lane.prompts.start(self._dispatcher.idle)
        if self._link.finishing:
            self._dispatcher.stop()
        self._dispatcher.run()
        self._diagnostics = certificate.cite(diagnostics())
        for lane in lanes:
            lane.prompts.stop()
            self._counts["unprepared"] += lane.prompts.unprepared
        self._clients.release()
        if counting is not None:
            counting.close()
        reporter.kill()
        self._report()
        self._counts["clock_drift_ns"] = max(self._counts["clock_drift_ns"], abs(clock.drift()))
        self._dispatcher, self._lanes = None, []
        self._link.post(Over(number, {lane.arm.target.name: lane.schedule.unsent for lane in lanes}))

    def _lane(self, plan: Plan, step: Step, arm: Arm, assignment: Assignment) -> Lane:
        """With its prompts ready, and as yet without a client."""
        part, of, salt = assignment.part, assignment.of, assignment.salt
        trace = part_of(plans.unpack(self._link.fetch(arm.file, self._folder)), part, of)
        slots = None if arm.concurrency is None else share(arm.concurrency, part, of)
        schedule = Schedule(trace, end=step.end_ns, concurrency=slots, open_loop=arm.open_loop)
        arm_salt = "" if salt == "none" else f"{salt}/{step.name}/{arm.target.name}"
        prompts = Prompts(trace, seed=plan.seed, salt=arm_salt, tokenizer=plan.tokenizer, corpus=self._corpus)
        lane = Lane(arm, schedule, PromptBuffer(trace, prompts, plan.vocabulary))
        lane.prompts.fill()
        return lane

    def _record(self, exchange: Exchange) -> None:
        self._writer.append(exchange)
        self._digests.add(exchange)
        self._counts["done"] += 1
        self._counts["failed"] += not exchange.ok
        for metric, value in (("ttft", exchange.ttft), ("tpot", exchange.tpot)):
            if exchange.ok and value is not None:
                self._live[exchange.target, metric].update(value)
        self._fire(exchange)

    def _report(self) -> None:
        lanes = {}
        for lane in self._lanes:
            name, schedule = lane.arm.target.name, lane.schedule
            medians = (self._live[name, metric].to_dict() for metric in ("ttft", "tpot"))
            lanes[name] = LaneProgress(schedule.sent, schedule.in_flight, lane.done, lane.failed, *medians)
        self._link.post(Progress(lanes))

    def _hand_over(self, number: int, offset_error: int, *, shared: bool) -> None:
        if not shared:
            for path in sorted((self._folder / plans.ROWS).glob("*.parquet")):
                self._link.send_rows(path)
        facts = WorkerFacts(
            number=number, pid=os.getpid(), host=platform.node(), rows=self._writer.rows, lost=None,
            clock_offset_s=self._offset / NS_PER_S, clock_offset_error_s=offset_error / NS_PER_S,
            counts=dict(self._counts), diagnostics=self._diagnostics,
        )  # fmt: skip
        self._link.post_surely(Final(facts, self._link.finishing, self._digests.state()))


def _check(targets: Iterable[Target], allowed: Collection[str]) -> None:
    """Raises InputError for what a worker may not fill in or open, and so give to the URL that a master names."""
    for target in targets:
        for own in sorted(target.wants() - set(allowed)):
            option = f"--allow-env {own[1:]}" if own.startswith("$") else f"--allow-key-file {own}"
            problem = f"the master's plan asks for {own}, which this worker may not give away"
            raise InputError(problem, where=target.name, remedy=f"{option}, where the worker is started")


def _often(period_s: float, act: Callable[[], None]) -> None:
    while True:
        gevent.sleep(period_s)
        act()


class Flushing:
    """Writes what is pending every FLUSH seconds, in a native thread, until `close`. A disk that is full, or gone for a
    while, ends nothing: the rows stay in memory, and the next time is the next try."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._over, self._failed = writer, Event(), 0
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> int:
        """Returns when every row is written, also by a write that was under way, which must not be cut: its rows are
        in no file yet, and pending no more. How often a write failed; raises OSError where the last ones did, too."""
        self._over.set()
        self._greenlet.join()
        tries = 1
        while (problem := self._flush()) is not None:
            if tries == LAST_TRIES:
                raise problem
            tries += 1
            gevent.sleep(FLUSH)
        return self._failed

    def _run(self) -> None:
        while not self._over.wait(FLUSH):
            self._flush()

    def _flush(self) -> OSError | None:
        try:
            gevent.get_hub().threadpool.apply(self._writer.flush)
        except OSError as problem:
            if not self._failed:
                log.error("rows can't be written: %s; they stay in memory, and are tried again", problem.strerror)
            self._failed += 1
            return problem
        return None


class TokenCounting:
    """Answers' tokens by a local tokenizer.json, in a native thread, before their rows are recorded. Vendors count
    tokens each in their own way, and some don't count: what this counts is the same for all targets. An exchange that
    is over waits here while others go on; the text is forgotten once it is counted. `record(exchange)` is called for
    each exchange that was put, in their order."""

    def __init__(self, tokenizer: str, record: Callable[[Exchange], None]) -> None:
        self._count, self._record = counter(tokenizer), record
        self._queue: Queue[Exchange | None] = Queue()
        self._greenlet = gevent.spawn(self._work)
        self.put = self._queue.put

    def close(self) -> None:
        """Returns when all are counted and recorded."""
        self._queue.put(None)
        self._greenlet.join()

    def _work(self) -> None:
        pool = gevent.get_hub().threadpool
        while (exchange := self._queue.get()) is not None:
            text = exchange.take_text()
            if text is not None:
                try:
                    exchange.tokenizer_output = pool.apply(self._count, (text,))
                except Exception:  # a text that the tokenizer can't take must not cost the row
                    log.exception("the answer of request %d was not counted", exchange.index)
            self._record(exchange)
