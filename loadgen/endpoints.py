"""Embedded endpoints: simulated servers in fresh interpreters of their own, that never outlive this process.

They must not be forked: Locust's monkey-patch would be inherited. The kernel sends each one a signal when its parent
dies (PR_SET_PDEATHSIG), so it ends with the run however that ends, kill -9 included; and each is a session of its own,
so that Ctrl-C ends the run and not the servers that it is measuring.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

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
    started = [(each, log := folder / f"{each.name}.log", _spawn(each, model, log)) for each in endpoints]
    if servers is not None:
        for _, _, process in started:
            servers.callback(process.wait)
            servers.callback(process.terminate)
    return [_ready(endpoint, process, log, model) for endpoint, log, process in started]


def _spawn(endpoint: Embedded, model: str, path: Path) -> Popen[bytes]:
    command = [sys.executable, "-P", "-m", "targets.simulated", endpoint.profile, "--model", model]
    for key, value in endpoint.settings.items():
        command += ["--set", f"{key}={value}"]
    with path.open("wb") as log:
        return Popen(
            command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )


def _ready(endpoint: Embedded, process: Popen[bytes], log: Path, model: str) -> Target:
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
    kind = endpoint.endpoint_type
    return Target(endpoint.name, url, model, kind, price_per_hour=built.price, watts=built.watts)
