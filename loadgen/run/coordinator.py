"""The conductor: hands out the shards, starts each phase at one instant, gathers the results, and concludes the run.

It lives in Locust's master, or in the only process of a local run, and talks with the shards as `shard` describes.
Workers that are there when the run starts take part, each with one shard; one that comes later is refused. A worker
that dies is noticed by its missing heartbeat: the others go on, and the run names the requests that it never reported.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from fastdigest import TDigest
from gevent.event import Event
from gevent.queue import Empty, Queue

from reports.store.digests import Digests
from targets.clock import realtime_ns
from targets.telemetry.scraper import Scraper

from .. import plan as plans
from ..plan import Plan
from .record import Record
from .worker import PIECE, boot_id

LEAD = 300_000_000  # nanoseconds from the announcement of a phase to its first instant
CLAIM = 30.0  # seconds that a worker has to claim its shard
FAREWELL = 30.0  # seconds without news after which a worker that should finish is given up

log = logging.getLogger("phaseload")

Message = dict[str, Any]


@dataclass
class WorkerState:
    """One shard and the process that has it."""

    number: int
    client: str
    pid: int = 0
    host: str = ""
    ready: int = -1  # the last phase that it is ready for
    over: int = -1  # the last phase that it has finished
    lanes: dict[str, Message] = field(default_factory=dict)
    final: Message | None = None
    lost: str = ""  # why it is gone
    heard: int = field(default_factory=realtime_ns)

    @property
    def pending(self) -> bool:
        return self.final is None and not self.lost


class Coordinator:
    """One run. `send(message, client)` reaches a worker, `alive(client)` says whether Locust still hears from it."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        clients: list[str],
        send: Callable[[Message, str], None],
        alive: Callable[[str], bool],
    ) -> None:
        self.folder, self.plan = folder, plan
        self.workers = {client: WorkerState(number, client) for number, client in enumerate(clients)}
        self.over = Event()
        self.interrupted = False
        self.phase = -1  # the last phase that was started
        self.origin = 0
        self.digests = Digests()
        self._scraper: Scraper | None = None
        self._send, self._alive = send, alive
        self._inbox: Queue[tuple[str, Message]] = Queue()
        self._secret = secrets.token_hex(16)
        self._began = realtime_ns()
        (folder / ".shared").write_text(self._secret)
        self.record = Record(folder, plan, len(clients))
        self._greenlet = gevent.spawn(self._conduct)

    def deliver(self, client: str, message: Message) -> None:
        """A worker's message. Never blocks."""
        self._inbox.put((client, message))

    def finish(self) -> None:
        """Ends the run early and waits until the workers have handed over what they have."""
        if not self.over.is_set():
            self.interrupted = True
            self._tell({"kind": "finish"})
            self.over.wait()

    def progress(self) -> dict[str, Message]:
        """By target: requests sent, in flight, done, failed, and the merged digests of TTFT and TPOT so far."""
        total: dict[str, Message] = {}
        for worker in self.workers.values():
            for target, lane in worker.lanes.items():
                seen = total.setdefault(target, dict.fromkeys(("sent", "in_flight", "done", "failed"), 0))
                for name in ("sent", "in_flight", "done", "failed"):
                    seen[name] += lane[name]
                for name in ("ttft", "tpot"):
                    digest = TDigest.from_dict(lane[name])
                    seen[name] = digest if name not in seen else seen[name] + digest
        return total

    # The conductor's greenlet.

    def _conduct(self) -> None:
        try:
            while any(worker.pending for worker in self.workers.values()):
                self._listen(0.2)
                self._notice_losses()
                self._advance()
            if self._scraper is not None:
                self._scraper.stop()
            self.record.complete(self.workers.values(), self.digests, self.interrupted, self.origin)
        except Exception:
            log.exception("the run could not be completed")
            self.record.fail()
        finally:
            (self.folder / ".shared").unlink(missing_ok=True)
            self.over.set()

    def _listen(self, timeout: float) -> None:
        """Takes in what has come, and waits for it a little."""
        try:
            client, message = self._inbox.get(timeout=timeout)
            while True:
                self._hear(client, message)
                client, message = self._inbox.get_nowait()
        except Empty:
            return

    def _advance(self) -> None:
        """Starts the next phase once every worker is ready for it."""
        alive = [worker for worker in self.workers.values() if not worker.lost]
        if self.phase >= 0 and alive and all(w.over >= self.phase or w.final for w in alive):
            self.record.phase_over(self.phase, self._now())
        upcoming = self.phase + 1
        if self.interrupted or upcoming >= len(self.plan.phases):
            return
        if alive and all(worker.ready >= upcoming for worker in alive):
            if upcoming == 0:
                self.origin = realtime_ns() + LEAD
                self._scraper = Scraper(self.plan.targets, self.folder, self.origin)
            start = 0 if upcoming == 0 else self._now() + LEAD
            self.phase = upcoming
            self.record.phase_started(upcoming, start, self.origin)
            self._tell({"kind": "go", "phase": upcoming, "origin": self.origin, "start": start})

    def _now(self) -> int:
        return realtime_ns() - self.origin

    def _notice_losses(self) -> None:
        for worker in self.workers.values():
            if not worker.pending:
                continue
            silent = (realtime_ns() - worker.heard) * 1e-9
            if not self._alive(worker.client):
                self._lose(worker, "its process is gone")
            elif not worker.pid and silent > CLAIM:
                self._lose(worker, "it never claimed its shard")
            elif self.interrupted and silent > FAREWELL:
                self._lose(worker, "it didn't hand over its results")

    def _lose(self, worker: WorkerState, why: str) -> None:
        worker.lost = why
        log.error("worker %d of %d is lost: %s; the run is invalid", worker.number, len(self.workers), why)

    def _hear(self, client: str, message: Message) -> None:
        worker = self.workers.get(client)
        kind = message["kind"]
        if worker is None or (kind == "claim" and worker.pid):
            why = "this run has begun without it" if worker is None else "it has its shard already"
            self._send({"kind": "refused", "why": why}, client)
            return
        worker.heard = realtime_ns()
        answer = ANSWERS.get(kind)
        if answer is not None:
            answer(self, worker, message)
        else:
            self._lose(worker, f"it said {kind!r}, which this version doesn't know")

    def _tell(self, message: Message) -> None:
        for worker in self.workers.values():
            if worker.pending:
                self._send(message, worker.client)

    # What workers say.

    def _on_claim(self, worker: WorkerState, message: Message) -> None:
        worker.pid, worker.host = int(message["pid"]), str(message["host"])
        offer = {
            "kind": "shard",
            "shard": worker.number,
            "of": len(self.workers),
            "plan": self.plan.dumps(),
            "salt": self.record.salt,
            "folder": str(self.folder.resolve()),
            "secret": self._secret,
            "boot": boot_id(),
        }
        self._send(offer, worker.client)
        if self.interrupted:
            self._send({"kind": "finish"}, worker.client)

    def _on_ping(self, worker: WorkerState, message: Message) -> None:
        self._send({"kind": "pong", "number": message["number"], "now": realtime_ns()}, worker.client)

    def _on_fetch(self, worker: WorkerState, message: Message) -> None:
        known = {leg.file for phase in self.plan.phases for leg in phase.legs}
        file, at = message["file"], int(message["at"])
        if file not in known:
            return
        with (self.folder / file).open("rb") as source:
            source.seek(at)
            data = source.read(PIECE)
            more = source.tell() < (self.folder / file).stat().st_size
        self._send({"kind": "piece", "file": file, "at": at, "data": data, "more": more}, worker.client)

    def _on_ready(self, worker: WorkerState, message: Message) -> None:
        worker.ready = int(message["phase"])

    def _on_over(self, worker: WorkerState, message: Message) -> None:
        worker.over = int(message["phase"])
        self.record.unsent(worker.over, message["unsent"])

    def _on_progress(self, worker: WorkerState, message: Message) -> None:
        worker.lanes = message["lanes"]

    def _on_rows(self, worker: WorkerState, message: Message) -> None:
        """A piece of a row file; a piece that comes twice is written to the same place."""
        name = Path(message["file"]).name
        if name.startswith(f"{worker.number}-") and name.endswith(".parquet"):
            path = self.folder / plans.ROWS / name
            path.parent.mkdir(exist_ok=True)
            with path.open("r+b" if path.exists() else "wb") as out:
                out.seek(int(message["at"]))
                out.write(message["data"])
        self._acknowledge(worker, message)

    def _on_final(self, worker: WorkerState, message: Message) -> None:
        if worker.final is None:
            worker.final = message
            self.digests.merge(message["digests"])
            if message["early"] and not self.interrupted:
                self._lose(worker, "it was stopped")
        self._acknowledge(worker, message)

    def _on_failed(self, worker: WorkerState, message: Message) -> None:
        self._lose(worker, str(message["error"]))

    def _acknowledge(self, worker: WorkerState, message: Message) -> None:
        self._send({"kind": "ack", "sequence": message["sequence"]}, worker.client)


ANSWERS: dict[str, Callable[[Coordinator, WorkerState, Message], None]] = {
    "claim": Coordinator._on_claim,
    "ping": Coordinator._on_ping,
    "fetch": Coordinator._on_fetch,
    "ready": Coordinator._on_ready,
    "over": Coordinator._on_over,
    "progress": Coordinator._on_progress,
    "rows": Coordinator._on_rows,
    "final": Coordinator._on_final,
    "failed": Coordinator._on_failed,
}
