"""The Locust adapter: `TraceUser`, and what ties coordinator and workers to Locust's runners and events.

Theory of operation. Locust starts and stops users, forks or connects workers, and shows its tables; what is sent when
is none of its business. So a run has one user in each worker process (held by `ReplayShape`), and that user holds the
process's `Worker`. The `Coordinator` lives where Locust's own decisions are made: in the master, or in the only process
of a local run. Both are wired up when Locust fires `init`, in every mode alike.

A process that the library started (`processes.LocustProcess`) stays for as many runs as its caller has. To Locust it is
one test, whose users stay too: for each run there is a new coordinator, and each process's user holds a new worker.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import psutil
from flask import request
from gevent.event import Event
from gevent.queue import Queue
from locust import LoadTestShape, User, events, task
from locust.exception import StopUser
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner, WorkerRunner

from targets import secrets
from targets.exchange import Exchange
from targets.linux import die_with_parent
from traces.errors import INCOMPLETE, OK, UNUSABLE, InputError

from .. import plan as plans
from ..options import user_options
from ..plan import Plan
from ..processes import ALLOWED, CHANNEL, RUN
from ..replays import conclude, numbered, prepare
from .clients import Clients
from .coordinator import Coordinator, Inbox
from .progress import Progress
from .worker import Worker

UP, DOWN = "phaseload_up", "phaseload_down"  # Locust's message types: to the coordinator, to a worker
NEXT = "phaseload_next"  # to a worker process: the next of a caller's runs has a coordinator, and may be claimed
LOCAL = "local"

log = logging.getLogger("phaseload")
secrets.take_over()


class TraceUser(User):  # type: ignore[misc]
    """Replays a trace; one a worker process. Subclasses set `trace`, `url` (or Locust's --host), and any other option
    of `phaseload replay` or key of a targets.toml as a class attribute, by its name with underscores: `model`,
    `speedup`, `slo`, `out`, ... An attribute that is neither one of these nor Locust's own is refused."""

    abstract = True
    worker: Worker | None = None  # that this user holds

    @task  # type: ignore[untyped-decorator]
    def replay(self) -> None:
        for worker in self.environment.phaseload.runs():
            self.worker = worker
            worker.done.wait()
        Event().wait()  # the shape ends the run; a task that returned would be run again

    def on_stop(self) -> None:
        if self.worker is not None:
            self.worker.finish()


class Wiring:
    """One process's part in the run, tied to its Locust environment."""

    def __init__(self, environment: Any, user: type[TraceUser]) -> None:
        self.environment, self.runner, self.user = environment, environment.runner, user
        self.options = user_options(user, TraceUser, dir(User))
        self.worker: Worker | None = None
        self.coordinator: Coordinator | None = None
        self.inbox: Inbox = Queue()  # of the coordinator, also while it plans its run
        self.progress: Progress  # the coordinator's
        self.exit_code: int | None = None
        self.stopping = False
        self.terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        self.folder = Path(os.environ[RUN]) if RUN in os.environ else None
        self.serving = CHANNEL in os.environ  # a caller's runs, one after the other
        self.clients = Clients(keep=self.serving)
        self.next_run = Event()
        self.over: Event | None = None  # once begun: set when the run, or the last of a caller's runs, is over
        self.leads = not isinstance(self.runner, WorkerRunner)
        self.forked = not self.leads and bool(environment.parsed_options.processes)
        known = self.options.trace and (self.options.url or environment.host)
        # Made in each process, each holds the same secrets, by the same names.
        wants = self.options.target(environment.host).wants() if known else set()
        others = not (self.leads or self.folder or self.serving)  # the plan of another machine's master
        self.allowed = {*wants, *os.environ.get(ALLOWED, "").splitlines()} if others else None
        if self.leads:
            self._lead()
        elif self.serving:
            os.close(int(os.environ[CHANNEL]))  # the caller must see when the leading process ends
        if not isinstance(self.runner, MasterRunner):
            self.runner.register_message(DOWN, self._to_worker)
            self.runner.register_message(NEXT, lambda **_: self.next_run.set())
            if self.forked:
                die_with_parent()  # or it would go on sending for a minute after its master was killed
        environment.events.quitting.add_listener(self._quitting)
        for number in (signal.SIGINT, signal.SIGHUP, *([signal.SIGTERM] if self.leads else [])):  # or Locust has it
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                gevent.signal_handler(number, self._interrupt, number)

    def _lead(self) -> None:
        self.runner.register_message(UP, self._to_coordinator)
        self.environment.shape_class = ReplayShape(self)
        if self.environment.web_ui is not None:
            self.environment.web_ui.app.before_request(_refuse_foreign)
        self.environment.events.test_start.add_listener(self._begin)
        self.environment.events.test_stopping.add_listener(self._end)
        self.environment.events.test_stop.add_listener(self._conclude)

    # The worker's side.

    def runs(self) -> Iterator[Worker]:
        """A worker for each run of this process: one, or as many as the caller has."""
        more = True
        while more:
            if self.serving:
                self.next_run.wait()
                self.next_run.clear()
            if self.worker is not None and not self.worker.done.is_set():
                log.error("a second user in this process is refused: its share of the trace would be sent twice")
                raise StopUser
            self.worker = Worker(partial(self.runner.send_message, UP), self._fire, self.allowed, self.clients)
            yield self.worker
            more = self.serving

    def _to_worker(self, environment: Any, msg: Any) -> None:
        if self.worker is not None:
            self.worker.deliver(msg.data)

    def _fire(self, exchange: Exchange) -> None:
        """Locust's own tables: the whole exchange, and TTFT and TPOT as rows of their own (milliseconds)."""
        error = None if exchange.ok else f"{exchange.outcome} {exchange.status or ''}".strip()
        length = exchange.bytes_received
        facts = {"name": exchange.target, "response_length": length, "exception": error, "context": {}}
        for kind, seconds in (("POST", exchange.e2e), ("TTFT", exchange.ttft), ("TPOT", exchange.tpot)):
            if seconds is not None or error is not None:  # an answer of one token has no TPOT
                milliseconds = None if seconds is None else seconds * 1e3
                self.environment.events.request.fire(request_type=kind, response_time=milliseconds, **facts)

    # The coordinator's side.

    def worker_count(self) -> int:
        if self.coordinator is not None and not self.coordinator.over.is_set():
            return len(self.coordinator.workers)
        return len(self._clients())

    def _clients(self) -> list[str]:
        if isinstance(self.runner, LocalRunner):
            return [LOCAL]
        clients = self.runner.clients
        return [client.id for client in clients.ready + clients.spawning + clients.running]

    def _alive(self, client: str) -> bool:
        if isinstance(self.runner, LocalRunner):
            return True
        return client in self.runner.clients and self.runner.clients[client].state != STATE_MISSING

    def is_over(self) -> bool:
        """Waits for it up to the second after which Locust asks again, so that an end is seen at once."""
        return self.exit_code == UNUSABLE or (self.over is not None and self.over.wait(1.0))

    def _to_coordinator(self, environment: Any, msg: Any) -> None:
        self.inbox.put((msg.node_id, msg.data))

    def _begin(self, **_: Any) -> None:
        """Locust starts: by the command line, by the button of the web page, or for a caller's runs."""
        self.exit_code, self.inbox = None, Queue()
        if self.serving:
            self.over = Event()
            gevent.spawn(self._serve, self.over)
            return
        try:
            folder = self._run_folder()
            plan = plans.load(folder)
            if self.environment.web_ui is None and self.environment.parsed_options.run_time:
                plan = plans.cut(plan, self.environment.parsed_options.run_time)
        except InputError as error:
            sys.stderr.write(f"phaseload: {error}\n")
            self.exit_code = UNUSABLE
            return
        except Exception:
            self.exit_code = UNUSABLE  # Locust logs it, and would go on
            raise
        self.over = self._coordinate(folder, plan).over

    def _serve(self, over: Event) -> None:
        """Records a caller's runs, one after the other, until the caller has no more; see `processes.LocustProcess`."""
        folders: Queue[Path | None] = Queue()
        channel = socket.socket(fileno=int(os.environ[CHANNEL]))
        gevent.spawn(self._listen, channel, folders)
        try:
            while (folder := folders.get()) is not None and not self.stopping:
                reply = self._record(folder)
                channel.sendall(f"{reply}\n".encode())
        except OSError:
            log.warning("nobody waits for the run any more")
        finally:
            self.exit_code = OK
            over.set()  # the shape sees that there are no more runs, and Locust quits by itself

    def _listen(self, channel: socket.socket, folders: Queue[Path | None]) -> None:
        """Takes in the folders of the caller's runs; a caller that has gone ends the run that is under way."""
        with channel.makefile(encoding="utf-8") as lines, suppress(OSError):
            for line in lines:
                folders.put(Path(line.rstrip("\n")))
        folders.put(None)
        self._end()

    def _record(self, folder: Path) -> str:
        """One run, from the plan to its files; why it can't be made, or ""."""
        self.inbox = Queue()
        try:
            coordinator = self._coordinate(folder, plans.load(folder))
        except InputError as error:
            return str(error)
        for client in self._clients():
            self.runner.send_message(NEXT, None, client)
        coordinator.over.wait()
        self.progress.stop()
        return ""

    def _coordinate(self, folder: Path, plan: Plan) -> Coordinator:
        send = partial(self.runner.send_message, DOWN)
        self.coordinator = Coordinator(folder, plan, self._clients(), send, self._alive, self.inbox)
        self.progress = Progress(self.coordinator)
        return self.coordinator

    def _run_folder(self) -> Path:
        """The planned folder for the first run, a copy of its plan for each later one."""
        if self.folder is None:
            options, target = self.options, self.options.target(self.environment.host)
            self.folder = prepare(options.trace, target, options.load, options.run, len(self._clients()))
        if not (self.folder / "run.json").exists():
            return self.folder
        folder = numbered(self.folder)
        shutil.copytree(self.folder / plans.FOLDER, folder / plans.FOLDER)
        shutil.copy(self.folder / plans.FILE, folder / plans.FILE)
        return folder

    def _end(self, **_: Any) -> None:
        """Locust is about to stop the users: everything is handed over first."""
        if self.coordinator is not None:
            self.coordinator.finish()

    def _conclude(self, **_: Any) -> None:
        if self.coordinator is None or self.exit_code is not None or self.serving:
            return
        self.exit_code = INCOMPLETE  # in case what follows fails
        self.progress.stop()
        self.exit_code = conclude(self.coordinator.folder)
        self.coordinator = self.over = None

    # The end of the process.

    def _quitting(self, **_: Any) -> None:
        if self.leads:
            self._end()
            self._conclude()
            self.environment.process_exit_code = INCOMPLETE if self.exit_code is None else self.exit_code
        else:
            if self.worker is not None:
                self.worker.finish()
                self.worker.done.wait(5 if self.forked else 30)
            self.environment.process_exit_code = int(self.worker is not None and self.worker.error is not None)

    def _interrupt(self, number: int) -> None:
        """SIGINT, SIGTERM or SIGHUP ends the run and reports it; Ctrl-C after that kills. `timeout` and a closed
        terminal send theirs twice."""
        if number == signal.SIGHUP:
            _mute(self.terminals)
        if self.stopping:
            if number == signal.SIGINT:
                _kill(INCOMPLETE)
            return
        self.stopping = True
        if self.leads:
            self._end_by_hand()
        elif self.worker is None or self.worker.done.is_set():
            _kill(INCOMPLETE)
        elif not self.forked:  # forked workers wait for their master's word
            self.worker.finish()
            self.worker.done.wait(30)
            self.runner.quit()

    def _end_by_hand(self) -> None:
        web = self.environment.web_ui
        if self.coordinator is not None:
            log.warning("ending the run: what is open is cut; Ctrl-C again kills")
            self._end()  # the shape sees that it is over, and Locust quits by itself
        elif web is None:
            _kill(INCOMPLETE)  # still waiting for workers
        if web is not None:
            self.runner.quit()
            web.stop()


def _refuse_foreign() -> tuple[str, int] | None:
    """The web page is for who opened it at this machine's address or name: a page of another site must not start a run,
    nor one under a name that was made to lead here."""
    with suppress(ValueError):  # such a URL is nobody's own
        host = urlsplit(f"//{request.host}").hostname or ""
        own = host in ("localhost", platform.node().lower()) or re.fullmatch(r"[\d.]+|[\da-f:.]*:[\da-f:.]*", host)
        if own and urlsplit(request.headers.get("Origin", request.host_url)).netloc == request.host:
            return None
    return "refused: this page is used at this machine's own address, and from no other page\n", 403


def _mute(terminals: list[int]) -> None:
    """What is written from now on is lost with these terminals; writing to one that is gone would be an error."""
    with Path(os.devnull).open("wb") as nowhere:
        for terminal in terminals:
            os.dup2(nowhere.fileno(), terminal)


def _kill(code: int) -> None:
    """Ends this process and all that it started, now."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(code)


listen, handle = MasterRunner.client_listener, MasterRunner.handle_message


def _listen(runner: Any) -> None:
    """Locust's listener, which a message that is none ends, and with it the master: it is dropped, and counted."""
    while True:
        try:
            listen(runner)
        except Exception as error:
            log.debug("a message was dropped: %r", error)
            if wiring := getattr(runner.environment, "phaseload", None):
                wiring.inbox.put(("", None))  # a stray


def _handle(runner: Any, client: str, message: Any) -> None:
    """Takes in what a client sent in its own name."""
    if message.node_id != client:
        raise ValueError("a message in another's name")
    handle(runner, client, message)


MasterRunner.client_listener, MasterRunner.handle_message = _listen, _handle


@events.init.add_listener  # type: ignore[untyped-decorator]
def wire(environment: Any, **_: Any) -> None:
    """Ties this process in, if its Locust file has a TraceUser."""
    users = [user for user in environment.user_classes if issubclass(user, TraceUser)]
    try:
        if len(users) > 1:
            raise InputError("only one TraceUser can run at a time", where=", ".join(user.__name__ for user in users))
        if users:
            environment.phaseload = Wiring(environment, users[0])
    except InputError as error:
        sys.stderr.write(f"phaseload: {error}\n")
        sys.exit(UNUSABLE)


class ReplayShape(LoadTestShape):  # type: ignore[misc]
    """A user in each process that takes part, until the run has ended."""

    abstract = True

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self._wiring = wiring

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        if self._wiring.is_over():
            return None
        workers = self._wiring.worker_count()
        return workers, max(1, workers), [self._wiring.user]
