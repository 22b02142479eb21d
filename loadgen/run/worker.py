"""A worker's share of a run: it claims a shard, runs the phases at the conductor's word, and hands its results over.

Theory of operation. The shard runs in a greenlet of its own; Locust's user only holds it, so that however Locust stops
a user (a click, a signal, a lost master), the exchanges that are open are cut, the rows are flushed and the digests
are handed over. The talk with the conductor (see `conductor`) is a few small messages:

    claim -> shard                what to do: the plan, this shard's number, where the run lies
    ping -> pong                  the offset of this machine's clock to the conductor's
    fetch -> piece                a leg's requests, where the run's folder is on another machine
    ready -> go                   each phase starts for all workers at one instant
    over, progress                for the display and the next phase
    rows -> ack, final -> ack     row files (again only from another machine), totals: sent again until acknowledged
    finish                        the conductor ends the run early
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from fastdigest import TDigest
from gevent.event import Event
from gevent.queue import Empty, Queue

from reports.store.digests import Digests
from reports.store.row_files import Writer
from targets.client.http_client import diagnostics
from targets.clock import Clock, monotonic_ns, realtime_ns
from targets.connecting import connect
from targets.exchange import Exchange
from traces.errors import InputError
from traces.prompts import corpus as corpora
from traces.prompts.prompts import Prompts
from traces.transforms import part_of

from .. import certificate
from .. import plan as plans
from ..plan import Arm, Plan, Step
from .dispatcher import Dispatcher, Lane
from .prompt_buffer import PromptBuffer
from .schedule import Schedule, share
from .token_counting import TokenCounting

Message = dict[str, Any]

FLUSH = 2.0  # seconds between flushes: what kill -9 loses at most
PROGRESS = 1.0
PIECE = 512 * 1024
SWITCH = 1e-4  # seconds that a thread which writes rows may keep the interpreter from the dispatcher
PATIENCE = 3.0  # seconds until a message that must arrive is sent again
TRIES = 10


class Refused(Exception):
    """The conductor has no shard for this process."""


class Worker:
    """`post(message)` sends to the conductor, `fire(exchange)` tells Locust about a finished exchange."""

    def __init__(self, post: Callable[[Message], None], fire: Callable[[Exchange], None]) -> None:
        self.done = Event()
        self.error: BaseException | None = None
        self._post, self._fire = post, fire
        self._inbox: Queue[Message] = Queue()
        self._finishing = False
        self._dispatcher: Dispatcher | None = None
        self._lanes: list[Lane] = []
        self._digests = Digests()
        self._live: defaultdict[str, dict[str, TDigest]] = defaultdict(
            lambda: {m: TDigest(50) for m in ("ttft", "tpot")}
        )
        self._counts: Counter[str] = Counter()
        self._diagnostics: Message = {}
        self._sequence = 0
        self._writer: Writer | None = None
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def deliver(self, message: Message) -> None:
        """A message of the conductor's. Never blocks."""
        if message["kind"] == "finish":
            self.finish()
        else:
            self._inbox.put(message)

    def finish(self) -> None:
        """Ends the run early: what is open is cut, all that was measured is handed over. Never blocks."""
        self._finishing = True
        self._inbox.put({"kind": "wake"})
        if self._dispatcher is not None:
            self._dispatcher.stop()

    # The run.

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error
            self._post({"kind": "failed", "error": str(error) if isinstance(error, InputError) else repr(error)})
            if not isinstance(error, InputError | Refused):
                raise
        finally:
            self.done.set()

    def _work(self) -> None:
        sys.setswitchinterval(SWITCH)
        offer = self._claim()
        plan = plans.loads(offer["plan"])
        self._number, self._of = int(offer["shard"]), int(offer["of"])
        self._corpus = None if plan.prompts is None else corpora.expected(plan.prompts)
        self._offset, error = self._measure_offset(offer)
        with tempfile.TemporaryDirectory(prefix="phaseload-") as spare:
            self._shared = self._is_shared(offer)
            self._folder = Path(offer["folder"]) if self._shared else Path(spare)
            self._writer = Writer(self._folder, self._number)
            flusher = gevent.spawn(self._flush_often)
            for number, phase in enumerate(plan.phases):
                if not self._finishing:
                    self._phase(plan, number, phase, str(offer["salt"]))
            flusher.kill()
            self._hand_over({"clock_offset_s": self._offset * 1e-9, "clock_offset_error_s": error * 1e-9})

    def _phase(self, plan: Plan, number: int, phase: Step, salt: str) -> None:
        prepared = [self._prepare(plan, phase, leg, salt) for leg in phase.legs]
        gc.collect()
        gc.freeze()
        self._post({"kind": "ready", "phase": number})
        go = self._await("go", phase=number)
        if go is None:
            return
        clock = Clock(int(go["origin"]) + self._offset)
        self._lanes = [
            Lane(arm, schedule, prompts, connect(arm.target, clock, keep_text=plan.tokenizer is not None))
            for arm, (schedule, prompts) in zip(phase.legs, prepared, strict=True)
        ]
        counting = None if plan.tokenizer is None else TokenCounting(plan.tokenizer, self._record)
        record = self._record if counting is None else counting.put
        self._dispatcher = Dispatcher(phase, self._lanes, clock, int(go["start"]), record, plan.seed)
        reporter = gevent.spawn(self._report_often)
        for lane in self._lanes:
            lane.prompts.start(self._dispatcher.idle)
        if self._finishing:
            self._dispatcher.stop()
        self._dispatcher.run()
        self._diagnostics = certificate.cite(diagnostics())
        for lane in self._lanes:
            lane.prompts.stop()
            lane.client.close()
            self._counts["unprepared"] += lane.prompts.unprepared
        if counting is not None:
            counting.close()
        reporter.kill()
        self._report()
        self._counts["clock_drift_ns"] = max(self._counts["clock_drift_ns"], abs(clock.drift()), key=abs)
        unsent = {lane.arm.target.name: lane.schedule.unsent for lane in self._lanes}
        self._dispatcher, self._lanes = None, []
        self._post({"kind": "over", "phase": number, "unsent": unsent})

    def _prepare(self, plan: Plan, phase: Step, leg: Arm, salt: str) -> tuple[Schedule, PromptBuffer]:
        trace = part_of(plans.unpack(self._fetched(leg.file)), self._number, self._of)
        slots = None if leg.concurrency is None else share(leg.concurrency, self._number, self._of)
        schedule = Schedule(trace, end=phase.end, concurrency=slots, open_loop=leg.open_loop)
        leg_salt = "" if salt == "none" else f"{salt}/{phase.name}/{leg.target.name}"
        prompts = Prompts(trace, seed=plan.seed, salt=leg_salt, tokenizer=plan.tokenizer, corpus=self._corpus)
        buffer = PromptBuffer(trace, prompts, plan.vocabulary)
        buffer.fill()
        return schedule, buffer

    def _record(self, exchange: Exchange) -> None:
        assert self._writer is not None
        self._writer.append(exchange)
        self._digests.add(exchange)
        self._counts["done"] += 1
        self._counts["failed"] += not exchange.ok
        if exchange.ok:
            for metric, value in (("ttft", exchange.ttft), ("tpot", exchange.tpot)):
                if value is not None:
                    self._live[exchange.target][metric].update(value)
        self._fire(exchange)

    # Rows and progress, while it runs.

    def _flush_often(self) -> None:
        while True:
            gevent.sleep(FLUSH)
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        gevent.get_hub().threadpool.apply(self._writer.flush)

    def _report_often(self) -> None:
        while True:
            gevent.sleep(PROGRESS)
            self._report()

    def _report(self) -> None:
        lanes = {
            lane.arm.target.name: {
                "sent": lane.schedule.sent,
                "in_flight": lane.schedule.in_flight,
                "done": lane.done,
                "failed": lane.failed,
                **{metric: digest.to_dict() for metric, digest in self._live[lane.arm.target.name].items()},
            }
            for lane in self._lanes
        }
        self._post({"kind": "progress", "lanes": lanes})

    # The talk with the conductor.

    def _claim(self) -> Message:
        self._post({"kind": "claim", "pid": os.getpid(), "host": platform.node(), "boot": boot_id()})
        while True:
            offer = self._inbox.get()
            if offer["kind"] == "shard":
                return offer
            if offer["kind"] == "refused":
                raise Refused(offer["why"])
            if self._finishing:
                raise Refused("the run has ended")

    def _await(self, kind: str, timeout: float | None = None, **values: Any) -> Message | None:
        """The next message of that kind with those values; None when the run is to finish or the time is over."""
        limit = None if timeout is None else time.monotonic() + timeout
        while not self._finishing or kind == "ack":
            try:
                message = self._inbox.get(timeout=None if limit is None else max(0.0, limit - time.monotonic()))
            except Empty:
                return None
            if message["kind"] == kind and all(message.get(name) == value for name, value in values.items()):
                return message
        return None

    def _surely(self, message: Message) -> bool:
        """Sends until it is acknowledged."""
        self._sequence += 1
        message["sequence"] = self._sequence
        for _ in range(TRIES):
            self._post(message)
            if self._await("ack", PATIENCE, sequence=self._sequence) is not None:
                return True
        return False

    def _measure_offset(self, offer: Message) -> tuple[int, int]:
        """(this clock - the conductor's, its error bound), ns: from the fastest of a few round trips.

        On one machine the clock is the same one: offset and error are 0.
        """
        if offer["boot"] == boot_id():
            return 0, 0
        best = (1 << 62, 0)
        for number in range(8):
            sent = monotonic_ns()
            self._post({"kind": "ping", "number": number})
            pong = self._await("pong", PATIENCE, number=number)
            if pong is not None:
                trip = monotonic_ns() - sent
                best = min(best, (trip, realtime_ns() - trip // 2 - int(pong["now"])))
        trip, offset = best
        if trip == 1 << 62:
            raise InputError("the master doesn't answer", remedy="check the network between master and workers")
        return offset, trip // 2

    def _is_shared(self, offer: Message) -> bool:
        """Is the conductor's run folder this machine's as well? A secret in it proves it."""
        try:
            return (Path(offer["folder"]) / ".shared").read_text() == str(offer["secret"])
        except OSError:
            return False

    def _fetched(self, file: str) -> Path:
        """The leg's requests as a file of this machine, in bounded pieces where the folder isn't shared."""
        path = self._folder / file
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as out:
            more = True
            while more:
                at = out.tell()
                self._post({"kind": "fetch", "file": file, "at": at})
                piece = self._await("piece", PATIENCE * TRIES, file=file, at=at)
                if piece is None:
                    raise InputError("the master didn't send the trace", where=file)
                out.write(piece["data"])
                more = bool(piece["more"])
        partial.rename(path)
        return path

    def _hand_over(self, facts: Message) -> None:
        assert self._writer is not None
        self._flush()
        rows = self._writer.rows
        if not self._shared:
            for path in sorted((self._folder / plans.ROWS).glob("*.parquet")):
                self._send_file(path)
        self._surely(
            {
                "kind": "final",
                "rows": rows,
                "early": self._finishing,
                "digests": self._digests.wire(),
                "counts": dict(self._counts),
                "diagnostics": self._diagnostics,
                **facts,
            }
        )

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as source:
            while data := source.read(PIECE):
                at = source.tell() - len(data)
                self._surely({"kind": "rows", "file": path.name, "at": at, "data": data})


def boot_id() -> str:
    """Names this machine since its last start: processes with the same one share a clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{platform.node()}-{os.getppid()}"
