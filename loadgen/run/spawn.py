"""Locust's command line for a plan, and the step into the process that runs it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from traces.errors import InputError

HERE = Path(__file__).parent
RUN = "PHASELOAD_RUN"  # `loadgen.run.locust_user` reads it


@dataclass(frozen=True)
class Workers:
    """Where the load comes from: this process, its forks, or workers that connect from elsewhere."""

    processes: int | None = None
    master: bool = False
    expect_workers: int = 1
    master_bind_host: str = "127.0.0.1"
    master_bind_port: int = 5557
    worker: bool = False
    master_host: str = "127.0.0.1"
    master_port: int = 5557
    web_port: int | None = None

    def __post_init__(self) -> None:
        for option, count in (("--processes", self.processes), ("--expect-workers", self.expect_workers)):
            if count is not None and count < 1:
                raise InputError(f"must be at least 1, not {count}", where=option)
        if self.processes is not None and (self.master or self.worker):
            raise InputError("can't be combined with --master or --worker", where="--processes")
        if self.master and self.worker:
            raise InputError("can't be combined with --worker", where="--master", remedy="give one of them")
        if self.web_port is not None:
            _bindable("--web-port", "127.0.0.1", self.web_port)
        if self.master:
            _bindable("--master-bind-port", self.master_bind_host, self.master_bind_port)

    @property
    def count(self) -> int:
        """Worker processes at least."""
        return self.processes or (self.expect_workers if self.master else 1)

    def arguments(self) -> list[str]:
        if self.worker:
            return ["--worker", "--master-host", self.master_host, "--master-port", str(self.master_port)]
        arguments = (
            ["--headless"] if self.web_port is None else ["--web-host", "127.0.0.1", "--web-port", str(self.web_port)]
        )
        if self.processes is not None and self.processes > 1:
            port = str(free_port())
            arguments += ["--processes", str(self.processes), "--master-bind-host", "127.0.0.1"]
            arguments += ["--master-bind-port", port, "--master-host", "127.0.0.1", "--master-port", port]
        if self.master:
            arguments += ["--master", "--expect-workers", str(self.expect_workers)]
            arguments += ["--master-bind-host", self.master_bind_host, "--master-bind-port", str(self.master_bind_port)]
        return arguments


def run(folder: Path | None, workers: Workers, extra: Sequence[str] = ()) -> NoReturn:
    """Becomes Locust: signals, terminal and exit code are its own from here on. `extra` goes to Locust as it is."""
    command = [sys.executable, "-P", "-m", "loadgen.run", "-f", str(HERE / "locustfile.py")]
    if not extra:
        command.append("--skip-log-setup")  # Locust's tables only where its own options ask for them
    environment = dict(os.environ)
    if folder is not None:
        environment[RUN] = str(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*command, *workers.arguments(), *extra], environment)


def _bindable(option: str, host: str, port: int) -> None:
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
