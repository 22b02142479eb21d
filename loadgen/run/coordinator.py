"""The coordinator: gives out the parts, starts each step at one instant, gathers the results, and keeps run.json.

It lives in Locust's master, or in the only process of a local run, and exchanges `messages` with the workers
(worker.py explains when each is sent). Workers that are there when the run starts take part, each with one part of the
trace; one that comes later is refused. A worker that dies is noticed by its missing heartbeat: the others go on, and
the run names the requests that it never reported.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent
import pyarrow.parquet as pq
from gevent.event import Event
from gevent.queue import Empty, Queue

from reports.store import run_json
from reports.store.digests import Digests
from reports.store.run_json import ClockFacts, RunFacts, StepFacts, WorkerFacts
from targets.clock import realtime_ns
from targets.scraper import Scraper
from targets.wire import lenient
from traces.errors import InputError
from traces.request import NS_PER_S
from traces.transforms import part_of

from .. import plan as plans
from ..certificate import machine_facts, versions
from ..plan import Plan
from . import messages
from .messages import PIECE, Final, FromCoordinator, LaneProgress, Message, StrayError, boot_id, decode, encode

PAUSE = 0.2  # seconds between two looks at the workers where no message comes
LEAD = 300_000_000  # nanoseconds from the announcement of a step to its first instant
CLAIM = 30.0  # seconds that a worker has to claim its part
FAREWELL = 30.0  # seconds without news after which a worker that should finish is given up

LARGEST = 1 << 53  # of the numbers that a worker sends
LISTED = 1000  # missing requests that are named by index; all of them are counted

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
        nothing: Any = {"rows": 0, "clock_offset_s": None, "diagnostics": None}
        return WorkerFacts(number=self.number, pid=self.pid, host=self.host, lost=self.lost, **nothing)


Inbox = Queue[tuple[str, object]]  # workers' messages: from which client, and what it sent


class Coordinator:
    """One run. `send(message, client)` reaches a worker; `alive(client)`: does Locust still get its heartbeats?"""

    def __init__(
        self, folder: Path, plan: Plan, clients: list[str], send: Callable[[dict[str, object], str], None],
        alive: Callable[[str], bool], inbox: Inbox,
    ) -> None:  # fmt: skip
        self.folder, self.plan = folder, plan
        self.workers = {client: WorkerState(number, client) for number, client in enumerate(clients)}
        self.over = Event()
        self.interrupted = False
        self.step = -1  # the last step that was started
        self.origin = 0
        self.digests = Digests()
        self._scraper: Scraper | None = None
        self._channel, self._alive, self._inbox = send, alive, inbox
        self._secret = secrets.token_hex(16)
        (folder / ".shared").write_text(self._secret)
        self.record = Record(folder, plan, len(clients))
        self._greenlet = gevent.spawn(self._coordinate)

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
                self._take_messages()
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

    def _take_messages(self) -> None:
        """Takes in what has come, and waits for it a little."""
        with suppress(Empty):
            self._take(*self._inbox.get(timeout=PAUSE))
            while True:
                self._take(*self._inbox.get_nowait())

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
        worker.lost = lenient.line(why)
        log.error("worker %d of %d is lost: %s; the run is invalid", worker.number, len(self.workers), worker.lost)

    def _send(self, message: FromCoordinator, client: str) -> None:
        self._channel(encode(message), client)

    def _send_all(self, message: FromCoordinator) -> None:
        for worker in self.workers.values():
            if worker.pending:
                self._send(message, worker.client)

    # Messages of workers.

    def _take(self, client: str, raw: object) -> None:
        worker = self.workers.get(client)
        try:
            message = decode(raw)
            if worker is not None:
                worker.last_message_ns = realtime_ns()
                self._act(worker, message)
            elif isinstance(message, messages.Claim):
                self._send(messages.Refused("this run has begun without it"), client)
            else:
                raise StrayError("from nobody who takes part")
        except StrayError as error:
            self.record.stray(str(error))
        except Exception as error:  # a worker's message can cost the run that worker, and no more
            if worker is not None:
                self._lose(worker, f"it sent what can't be used: {error}")

    def _act(self, worker: WorkerState, message: Message) -> None:
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
                if not worker.over < message.step <= self.step:
                    raise InputError("no step that it was in", where=str(message.step))
                self.record.unsent(message.step, message.unsent)
                worker.over = message.step
            case messages.Progress():
                worker.lanes = message.lanes
            case messages.Rows() | Final():
                self._keep(worker, message)
                self._send(messages.Ack(message.sequence), worker.client)
            case messages.Failed():
                self._lose(worker, message.error)
            case _:
                self._lose(worker, f"it sent what only a coordinator sends: {type(message).__name__}")

    def _assign(self, worker: WorkerState, claim: messages.Claim) -> None:
        if worker.pid:
            self._send(messages.Refused("it has its part already"), worker.client)
            return
        if claim.pid <= 0:
            raise InputError("no process", where=str(claim.pid))
        worker.pid, worker.host = claim.pid, lenient.line(claim.host, 255)
        of, folder, salt = len(self.workers), str(self.folder.resolve()), self.record.facts.salt
        assignment = messages.Assignment(worker.number, of, self.plan, salt, folder, self._secret, boot_id())
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

    def _keep(self, worker: WorkerState, result: messages.Rows | Final) -> None:
        """A piece of a row file (one that comes twice is written to the same place), or the totals."""
        if isinstance(result, messages.Rows):
            if not re.fullmatch(rf"{worker.number}-\d+\.parquet", result.file):
                raise InputError("no file of its rows", where=repr(result.file))
            path = self.folder / plans.ROWS / result.file
            there = path.stat().st_size if path.exists() else 0
            if not 0 <= result.at <= there:
                raise InputError("no piece of its rows", where=result.file)
            path.parent.mkdir(exist_ok=True)
            with path.open("r+b" if there else "wb") as out:
                out.seek(result.at)
                out.write(result.data)
        elif worker.final is None:
            facts = result.worker
            if (facts.number, facts.pid) != (worker.number, worker.pid) or not 0 <= facts.rows < LARGEST:
                raise InputError("no facts of its own", where=f"number {facts.number}, pid {facts.pid}")
            if not all(0 <= each.failed <= each.counted <= facts.rows for each in result.digests):
                raise InputError("no counts of its rows")
            worker.final = replace(result, worker=replace(facts, host=worker.host))
            self.digests.merge(result.digests)
            if result.early and not self.interrupted:
                self._lose(worker, "it was stopped")


class Record:
    """The run.json of one run: what is known when it starts, each step as it starts and ends, and the run's end.
    Instants are nanoseconds from the run's start."""

    def __init__(self, folder: Path, plan: Plan, workers: int) -> None:
        self.folder, self.plan, self.workers = folder, plan, workers
        targets = tuple(run_json.target_facts(target, plan.embedded.get(target.name)) for target in plan.targets)
        self.facts = RunFacts(
            name=folder.name, created=datetime.now(UTC).isoformat(timespec="seconds"), version=version("phaseload"),
            seed=plan.seed, salt=f"{plan.name}-{secrets.token_hex(4)}" if plan.salt == "auto" else plan.salt,
            prompts=plan.prompts, slo=plan.slo, goodput=plan.goodput, argv=plan.argv, order=plan.order, json=plan.json,
            report=plan.report, closing=plan.closing, trace=plan.trace, targets=targets, steps=(), workers=(),
            ended="running", machine=machine_facts(), versions=versions(), evidence=plan.evidence,
            quota_scale=plan.quota_scale,
        )  # fmt: skip
        self._write()

    def step_started(self, number: int, start: int, origin: int) -> None:
        """`origin`: the run's start, nanoseconds of CLOCK_REALTIME."""
        step = self.plan.steps[number]
        window = (start + step.warmup_ns, None if step.end_ns is None else start + step.end_ns)
        planned = {arm.target.name: arm.requests for arm in step.arms}
        facts = StepFacts(
            step.name,
            step.load,
            start,
            window,
            None,
            step.warmup_s,
            step.drain_s,
            planned,
            factor=step.factor,
            warmup=step.warmup,
        )
        self._write(steps=(*self.facts.steps, facts), clock=ClockFacts(origin))

    def unsent(self, number: int, counts: Mapping[str, int]) -> None:
        """What a worker was planned to send in a step and hadn't by its end."""
        unsent, planned = self.facts.steps[number].unsent, self.facts.steps[number].planned
        if not all(0 <= count <= planned.get(target, 0) for target, count in counts.items()):
            raise InputError("no counts of what was planned")
        total = {target: unsent.get(target, 0) + count for target, count in counts.items()}
        self._change(number, unsent={**unsent, **total})

    def step_over(self, number: int, at: int) -> None:
        """Every worker that is left has finished the step. Later calls for the same step change nothing."""
        step = self.facts.steps[number]
        if step.end is None:
            begin, end = step.window
            self._change(number, end=at, window=(begin, end or at))

    def complete(self, workers: Iterable[WorkerFacts], digests: Digests, interrupted: bool) -> None:
        workers = tuple(map(self._checked, workers))
        missing, indices = self._missing([worker.number for worker in workers if worker.lost or interrupted])
        lost = any(worker.lost for worker in workers)
        digests.save(self.folder / "digests.json")
        beyond = (each.diagnostics.beyond_certificate for each in workers if each.diagnostics is not None)
        self._write(
            workers=workers, certificate_exceeded=next(filter(None, beyond), ""), missing=missing,
            missing_requests=tuple(indices),
            ended="worker_lost" if lost else "interrupted" if interrupted else "completed",
        )  # fmt: skip

    def stray(self, what: str) -> None:
        """A message that nobody who takes part has sent was dropped."""
        if not self.facts.strays:
            log.warning("a message was dropped, and more may be: %s", what)
        self.facts = replace(self.facts, strays=self.facts.strays + 1)

    def fail(self) -> None:
        """The run could not be completed."""
        self._write(ended="worker_lost")

    def _change(self, number: int, **changes: Any) -> None:
        steps = list(self.facts.steps)
        steps[number] = replace(steps[number], **changes)
        self._write(steps=tuple(steps))

    def _write(self, **changes: Any) -> None:
        self.facts = replace(self.facts, **changes)
        run_json.write(self.folder, self.facts)

    def _row_files(self, worker: int) -> dict[Path, int]:
        """A worker's files, and how many rows each holds. One that can't be read is for the report to name."""
        files = {}
        for path in (self.folder / plans.ROWS).glob(f"{worker}-*.parquet"):
            with suppress(OSError, ValueError):
                files[path] = pq.read_metadata(path).num_rows
        return files

    def _checked(self, worker: WorkerFacts) -> WorkerFacts:
        """The worker with as many rows as its files hold: it is lost where they are fewer than it has written."""
        rows = sum(self._row_files(worker.number).values())
        gone = worker.rows - rows
        return replace(worker, rows=rows, lost=worker.lost or (f"{gone} of its rows are gone" if gone > 0 else None))

    def _missing(self, workers: Iterable[int]) -> tuple[dict[str, int], list[int]]:
        """What these workers were planned to send and didn't report: by target, and some of them by index."""
        counts: Counter[str] = Counter()
        indices: list[int] = []
        for number in workers:
            recorded = set(self._recorded(number))
            for step, arm in ((each, arm) for each in self.plan.steps for arm in each.arms):
                planned = part_of(plans.unpack(self.folder / arm.file), number, self.workers).column("index").tolist()
                absent = [index for index in planned if (step.name, arm.target.name, index) not in recorded]
                counts[arm.target.name] += len(absent)
                indices += absent[: LISTED - len(indices)]
        return dict(counts), indices

    def _recorded(self, worker: int) -> Iterator[tuple[str, str, int]]:
        for path in self._row_files(worker):
            with suppress(OSError, ValueError):
                rows = pq.read_table(path, columns=["step", "target", "index"])
                yield from zip(*(rows[name].to_pylist() for name in ("step", "target", "index")), strict=True)
