"""Locust's command line for a run, and the two ways into it: this process becomes Locust, or starts one.

The command line becomes Locust, so that signals, the terminal and the exit code are Locust's own. The library starts
a `LocustProcess`, which stays for as many runs as the caller has. Both run `loadgen.run.locustfile` in a fresh
interpreter; `loadgen.run.locust_user` reads the two environment variables below.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import NoReturn, Self

from targets import secrets
from traces.errors import UNUSABLE, InputError, RunFailed
from traces.typed_json import hold_to_types

LOCUSTFILE = Path(__file__).parent / "run" / "locustfile.py"
RUN = "PHASELOAD_RUN"  # the folder of the planned run
ALLOWED = "PHASELOAD_ALLOWED"  # what a worker may fill in for its master's plan: `Target.wants`, one a line
TOKEN = "PHASELOAD_TOKEN"  # noqa: S105 - names the secret that proves the messages of coordinator and workers
CHANNEL = "PHASELOAD_CHANNEL"  # the file descriptor on which a `LocustProcess` gets the folders of its runs
FAREWELL_S = 30.0  # that a process may take to end
LAST_LINES = 5  # of a failed process's output, for the error


@dataclass(frozen=True)
class Workers:
    """Where the load comes from: this process, its forks, or workers that connect from elsewhere. Raises InputError."""

    processes: int | None = None
    master: bool = False
    expect_workers: int = 1
    master_bind_host: str = "127.0.0.1"
    master_bind_port: int = 5557
    worker: bool = False
    master_host: str = "127.0.0.1"
    master_port: int = 5557
    allow_env: Sequence[str] = ()
    allow_key_file: Sequence[str] = ()
    token_env: str | None = None
    web_port: int | None = None

    def __post_init__(self) -> None:
        hold_to_types(self)
        for option, count in (("--processes", self.processes), ("--expect-workers", self.expect_workers)):
            if count is not None and count < 1:
                raise InputError(f"must be at least 1, not {count}", where=option)
        if self.processes is not None and (self.master or self.worker):
            raise InputError("can't be combined with --master or --worker", where="--processes")
        if self.master and self.worker:
            raise InputError("can't be combined with --worker", where="--master", remedy="give one of them")
        if self.token_env is not None and not os.environ.get(self.token_env):
            raise secrets.absent(self.token_env, "--token-env")
        if self.web_port is not None:
            _check_bindable("--web-port", "127.0.0.1", self.web_port)
        if self.master:
            _check_bindable("--master-bind-port", self.master_bind_host, self.master_bind_port)

    @property
    def count(self) -> int:
        """Worker processes at least."""
        return self.processes or (self.expect_workers if self.master else 1)

    def environment(self, allowed: Collection[str] = ()) -> dict[str, str]:
        """What Locust's processes have in theirs. Those of one machine share a fresh token: others may reach their
        port."""
        token = os.environ.get(self.token_env or TOKEN) or token_hex(16)
        shared = {TOKEN: token} if self.token_env or self.processes else {}
        allowed = [*allowed, *(f"${name}" for name in self.allow_env), *self.allow_key_file]
        return {**shared, ALLOWED: "\n".join(allowed)}

    def arguments(self) -> list[str]:
        if self.worker:
            return ["--worker", "--master-host", self.master_host, "--master-port", str(self.master_port)]
        web_page = ["--web-host", "127.0.0.1", "--web-port", str(self.web_port)]
        arguments = ["--headless"] if self.web_port is None else web_page
        if self.processes is not None and self.processes > 1:
            port = str(free_port())
            arguments += ["--processes", str(self.processes), "--master-bind-host", "127.0.0.1"]
            arguments += ["--master-bind-port", port, "--master-host", "127.0.0.1", "--master-port", port]
        if self.master:
            arguments += ["--master", "--expect-workers", str(self.expect_workers)]
            arguments += ["--master-bind-host", self.master_bind_host, "--master-bind-port", str(self.master_bind_port)]
        return arguments


def become_locust(
    folder: Path | None, workers: Workers, extra: Sequence[str] = (), allowed: Collection[str] = ()
) -> NoReturn:
    """Replaces this process by Locust, for the run planned in `folder` (None: for a worker of another machine's run,
    which may fill in what is `allowed`, too: see `Target.wants`). `extra` goes to Locust as it is."""
    environment, _ = secrets.hand_over()
    environment |= workers.environment(allowed)
    if folder is not None:
        environment[RUN] = str(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, _command(workers, extra), environment)


def _command(workers: Workers, extra: Sequence[str] = ()) -> list[str]:
    command = [sys.executable, "-P", "-m", "loadgen.run.locustfile", "-f", str(LOCUSTFILE)]
    if not extra:
        command.append("--skip-log-setup")  # Locust's tables only where its own options ask for them
    return [*command, *workers.arguments(), *extra]


class LocustProcess:
    """Locust in a process of its own, workers and all, that records one planned run after the other.

    Theory of operation. Caller and process hold the ends of a socket. The caller sends the folder of a planned run as
    a line, the process records the run and replies with a line: an empty one, or why nothing was recorded. The process
    ends when the caller's end of the socket is closed, however the caller ends. It is a session of its own, so that
    Ctrl-C reaches the caller alone, who asks the process to end the run and still gets what was recorded.

    `extra` goes to Locust as it is; `shown`: warnings and live lines go to the caller's stderr. Raises InputError.
    """

    def __init__(self, workers: Workers, extra: Sequence[str] = (), *, shown: bool = False) -> None:
        if workers.worker or workers.web_port is not None:
            raise InputError("a worker or a web page is for the command line", where="workers")
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._channel, theirs = socket.socketpair()
        environment, held = secrets.hand_over()
        with theirs:
            self._process = subprocess.Popen(
                _command(workers, extra), stdin=subprocess.DEVNULL, stdout=self._output,
                stderr=None if shown else subprocess.STDOUT,
                env={**environment, **workers.environment(), CHANNEL: str(theirs.fileno())},
                pass_fds=(theirs.fileno(), held), start_new_session=True,
            )  # fmt: skip
        os.close(held)
        self._replies = self._channel.makefile(encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self._channel.close()
        try:
            self._process.wait(FAREWELL_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._kill()
        self._output.close()

    def record(self, folder: Path) -> None:
        """Records the run planned in `folder`. Ctrl-C ends the run, which is then recorded as interrupted; a second
        one kills the process. Raises RunFailed where nothing was recorded."""
        with suppress(BrokenPipeError):  # the reply, or its absence, has the reason
            self._channel.sendall(f"{folder.resolve()}\n".encode())
        try:
            reply = self._reply()
        except KeyboardInterrupt:
            self._process.send_signal(signal.SIGINT)
            try:
                reply = self._reply()
            except KeyboardInterrupt:
                self._kill()
                raise
        if not reply.endswith("\n"):
            raise RunFailed(f"Locust's process ended without a run: {self._last_words()}")
        if reply != "\n":
            raise RunFailed(reply.strip(), code=UNUSABLE)

    def _reply(self) -> str:
        try:
            return self._replies.readline()
        except ConnectionResetError:
            return ""

    def _last_words(self) -> str:
        self._process.wait(FAREWELL_S)
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-LAST_LINES:]) or f"exit code {self._process.returncode}"

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _check_bindable(option: str, host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise InputError(f"expected a port from 1 to 65535, not {port}", where=option)
    try:
        socket.create_server(("" if host == "*" else host, port)).close()
    except OSError as problem:
        raise InputError(f"can't listen at {host}:{port}: {problem.strerror}", where=option) from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
