"""The coordinator: gives out the parts, starts each step at one instant, gathers the results, and completes the run.

It lives in Locust's master, or in the only process of a local run, and exchanges `messages` with the workers
(worker.py explains when each is sent). Workers that are there when the run starts take part, each with one part of the
trace; one that comes later is refused. A worker that dies is noticed by its missing heartbeat: the others go on, and
the run names the requests that it never reported.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.queue import Empty, Queue

from reports.store.digests import Digests
from reports.store.run_json import WorkerFacts
from targets.clock import realtime_ns
from targets.scraper import Scraper
from traces.errors import InputError
from traces.request import NS_PER_S

from .. import plan as plans
from ..plan import Plan
from . import messages
from .messages import PIECE, Final, FromCoordinator, LaneProgress, Message, boot_id, decode, encode
from .record import Record

LEAD = 300_000_000  # nanoseconds from the announcement of a step to its first instant
CLAIM = 30.0  # seconds that a worker has to claim its part
FAREWELL = 30.0  # seconds without news after which a worker that should finish is given up

log = logging.getLogger("phaseload")


@dataclass
class WorkerState:
    """A worker as the coordinator knows it: its part's number, its process, and how far it is."""

    number: int
    client: str
    pid: int = 0
    host: str = ""
    ready: int = -1  # the last step that it is ready for
    over: int = -1  # the last step that it has finished
    lanes: Mapping[str, LaneProgress] = field(default_factory=dict)
    final: Final | None = None
    lost: str = ""  # why it is gone
    last_message_ns: int = field(default_factory=realtime_ns)

    @property
    def pending(self) -> bool:
        return self.final is None and not self.lost

    def facts(self) -> WorkerFacts:
        if self.final is not None:
            return replace(self.final.worker, lost=self.lost or None)
        return WorkerFacts(
            number=self.number, pid=self.pid, host=self.host, rows=0, lost=self.lost, clock_offset_s=None,
            diagnostics=None,
        )  # fmt: skip


class Coordinator:
    """One run. `send(message, client)` reaches a worker; `alive(client)`: does Locust still get its heartbeats?"""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        clients: list[str],
        send: Callable[[dict[str, object], str], None],
        alive: Callable[[str], bool],
    ) -> None:
        self.folder, self.plan = folder, plan
        self.workers = {client: WorkerState(number, client) for number, client in enumerate(clients)}
        self.over = Event()
        self.interrupted = False
        self.step = -1  # the last step that was started
        self.origin = 0
        self.digests = Digests()
        self._scraper: Scraper | None = None
        self._channel, self._alive = send, alive
        self._inbox: Queue[tuple[str, Mapping[str, object]]] = Queue()
        self._secret = secrets.token_hex(16)
        (folder / ".shared").write_text(self._secret)
        self.record = Record(folder, plan, len(clients))
        self._greenlet = gevent.spawn(self._coordinate)

    def deliver(self, client: str, raw: Mapping[str, object]) -> None:
        """A worker's message. Never blocks."""
        self._inbox.put((client, raw))

    def finish(self) -> None:
        """Ends the run early and waits until the workers have handed over what they have."""
        if not self.over.is_set():
            self.interrupted = True
            self._send_all(messages.Finish())
            self.over.wait()

    # The coordinator's greenlet.

    def _coordinate(self) -> None:
        try:
            while any(worker.pending for worker in self.workers.values()):
                self._take_messages(0.2)
                self._notice_losses()
                self._advance()
            if self._scraper is not None:
                self._scraper.stop()
            workers = [worker.facts() for worker in self.workers.values()]
            self.record.complete(workers, self.digests, self.interrupted)
        except Exception:
            log.exception("the run could not be completed")
            self.record.fail()
        finally:
            (self.folder / ".shared").unlink(missing_ok=True)
            self.over.set()

    def _take_messages(self, timeout: float) -> None:
        """Takes in what has come, and waits for it a little."""
        try:
            client, raw = self._inbox.get(timeout=timeout)
            while True:
                self._take(client, raw)
                client, raw = self._inbox.get_nowait()
        except Empty:
            return

    def _advance(self) -> None:
        """Starts the next step once every worker is ready for it."""
        alive = [worker for worker in self.workers.values() if not worker.lost]
        if self.step >= 0 and alive and all(w.over >= self.step or w.final for w in alive):
            self.record.step_over(self.step, self._now())
        upcoming = self.step + 1
        if self.interrupted or upcoming >= len(self.plan.steps):
            return
        if alive and all(worker.ready >= upcoming for worker in alive):
            if upcoming == 0:
                self.origin = realtime_ns() + LEAD
                self._scraper = Scraper(self.plan.targets, self.folder, self.origin)
            start = 0 if upcoming == 0 else self._now() + LEAD
            self.step = upcoming
            self.record.step_started(upcoming, start, self.origin)
            self._send_all(messages.Go(upcoming, self.origin, start))

    def _now(self) -> int:
        """Nanoseconds from the run's start."""
        return realtime_ns() - self.origin

    def _notice_losses(self) -> None:
        for worker in self.workers.values():
            if not worker.pending:
                continue
            silent_s = (realtime_ns() - worker.last_message_ns) / NS_PER_S
            if not self._alive(worker.client):
                self._lose(worker, "its process is gone")
            elif not worker.pid and silent_s > CLAIM:
                self._lose(worker, "it never claimed its part")
            elif self.interrupted and silent_s > FAREWELL:
                self._lose(worker, "it didn't hand over its results")

    def _lose(self, worker: WorkerState, why: str) -> None:
        worker.lost = why
        log.error("worker %d of %d is lost: %s; the run is invalid", worker.number, len(self.workers), why)

    def _send(self, message: FromCoordinator, client: str) -> None:
        self._channel(encode(message), client)

    def _send_all(self, message: FromCoordinator) -> None:
        for worker in self.workers.values():
            if worker.pending:
                self._send(message, worker.client)

    # Messages of workers.

    def _take(self, client: str, raw: Mapping[str, object]) -> None:
        worker = self.workers.get(client)
        if worker is None:
            self._send(messages.Refused("this run has begun without it"), client)
            return
        worker.last_message_ns = realtime_ns()
        try:
            self._answer(worker, decode(raw))
        except InputError as error:
            self._lose(worker, f"it sent what can't be read: {error}")

    def _answer(self, worker: WorkerState, message: Message) -> None:
        match message:
            case messages.Claim():
                self._assign(worker, message)
            case messages.Ping():
                self._send(messages.Pong(message.number, realtime_ns()), worker.client)
            case messages.Fetch():
                self._send_piece(worker, message)
            case messages.Ready():
                worker.ready = message.step
            case messages.Over():
                worker.over = message.step
                self.record.unsent(message.step, message.unsent)
            case messages.Progress():
                worker.lanes = message.lanes
            case messages.Rows():
                self._write_rows(worker, message)
                self._send(messages.Ack(message.sequence), worker.client)
            case Final():
                self._keep_final(worker, message)
                self._send(messages.Ack(message.sequence), worker.client)
            case messages.Failed():
                self._lose(worker, message.error)
            case _:
                self._lose(worker, f"it sent what only a coordinator sends: {type(message).__name__}")

    def _assign(self, worker: WorkerState, claim: messages.Claim) -> None:
        if worker.pid:
            self._send(messages.Refused("it has its part already"), worker.client)
            return
        worker.pid, worker.host = claim.pid, claim.host
        part, folder = (worker.number, len(self.workers)), str(self.folder.resolve())
        assignment = messages.Assignment(*part, self.plan, self.record.salt, folder, self._secret, boot_id())
        self._send(assignment, worker.client)
        if self.interrupted:
            self._send(messages.Finish(), worker.client)

    def _send_piece(self, worker: WorkerState, fetch: messages.Fetch) -> None:
        """Files of the plan only."""
        if fetch.file not in {arm.file for step in self.plan.steps for arm in step.arms}:
            return
        path = self.folder / fetch.file
        with path.open("rb") as source:
            source.seek(fetch.at)
            data = source.read(PIECE)
            more = source.tell() < path.stat().st_size
        self._send(messages.Piece(fetch.file, fetch.at, data, more), worker.client)

    def _write_rows(self, worker: WorkerState, rows: messages.Rows) -> None:
        """A piece of a row file; a piece that comes twice is written to the same place."""
        name = Path(rows.file).name
        if name.startswith(f"{worker.number}-") and name.endswith(".parquet"):
            path = self.folder / plans.ROWS / name
            path.parent.mkdir(exist_ok=True)
            with path.open("r+b" if path.exists() else "wb") as out:
                out.seek(rows.at)
                out.write(rows.data)

    def _keep_final(self, worker: WorkerState, final: Final) -> None:
        if worker.final is None:
            worker.final = final
            self.digests.merge(final.digests)
            if final.early and not self.interrupted:
                self._lose(worker, "it was stopped")
