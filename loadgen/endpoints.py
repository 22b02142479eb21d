"""Embedded endpoints: simulated servers in fresh interpreters of their own, that never outlive this process.

They must not be forked: Locust's monkey-patch would be inherited. The kernel sends each one a signal when its parent
dies (PR_SET_PDEATHSIG), so it ends with the run however that ends, kill -9 included; and each is a session of its own,
so that Ctrl-C ends the run and not the servers that it is measuring.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from reports.store.run_json import EmbeddedFacts
from targets.linux import die_with_parent
from targets.simulated.build import build
from targets.simulated.profiles import load
from targets.target import Target
from traces.errors import InputError

START_S = 30.0  # that an endpoint may take to accept connections


@dataclass(frozen=True)
class Embedded:
    """A simulated endpoint of a bake-off. `profile` and `settings` as `phaseload serve` takes them."""

    name: str
    profile: str
    endpoint_type: str = "chat"
    settings: Mapping[str, str] = field(default_factory=dict)

    def facts(self, model: str) -> EmbeddedFacts:
        profile = load(self.profile)
        pool = self.settings.get("pool", "1")
        return EmbeddedFacts(f"simulated: {profile.description}; {model}; pool {pool}", profile.standing)


def start(endpoints: Sequence[Embedded], model: str, folder: Path, servers: ExitStack | None = None) -> list[Target]:
    """Starts all of them side by side; their logs go into `folder`. They end with this process, or with `servers`.
    Raises InputError where one doesn't come up."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = [_spawn(endpoint, model, folder) for endpoint in endpoints]
    if servers is not None:
        for process in processes:
            servers.callback(process.wait)
            servers.callback(process.terminate)
    pairs = zip(endpoints, processes, strict=True)
    return [_ready(endpoint, process, _log(folder, endpoint), model) for endpoint, process in pairs]


def _log(folder: Path, endpoint: Embedded) -> Path:
    return folder / f"{endpoint.name}.log"


def _spawn(endpoint: Embedded, model: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "targets.simulated", endpoint.profile, "--model", model]
    for key, value in endpoint.settings.items():
        command += ["--set", f"{key}={value}"]
    with _log(folder, endpoint).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _ready(endpoint: Embedded, process: subprocess.Popen[bytes], log: Path, model: str) -> Target:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                return _target(endpoint, str(json.loads(line)["url"]), model)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    last_line = (log.read_text(errors="replace").strip().splitlines() or ["its log is empty"])[-1]
    raise InputError(f"the embedded endpoint didn't start: {last_line}", where=endpoint.name)


def _target(endpoint: Embedded, url: str, model: str) -> Target:
    built = build(endpoint.profile, model=model, settings=endpoint.settings)
    return Target(
        name=endpoint.name,
        url=url,
        model=model,
        endpoint_type=endpoint.endpoint_type,
        price_per_hour=built.price,
        watts=built.watts,
    )
