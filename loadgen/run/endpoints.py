"""Embedded endpoints: simulated servers in fresh interpreters of their own, that never outlive this process.

They must not be forked: Locust's monkey-patch would be inherited. Each is told by the kernel when its parent dies
(PR_SET_PDEATHSIG), so it ends with the run however that ends, kill -9 included; and each is a session of its own, so
that Ctrl-C ends the run and not the servers that it is measuring.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.simulated.build import build
from targets.simulated.profiles import load
from targets.target import Target
from traces.errors import InputError

PR_SET_PDEATHSIG = 1
START = 30.0  # seconds that an endpoint may take to accept connections

_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Embedded:
    """A simulated endpoint of a bake-off. `profile` and `settings` as `phaseload serve` takes them."""

    name: str
    profile: str
    endpoint_type: str = "chat"
    settings: Mapping[str, str] = field(default_factory=dict)

    def about(self, model: str) -> dict[str, Any]:
        """What the report says of it."""
        profile = load(self.profile)
        return {
            "embedded": True,
            "description": f"simulated: {profile.description}; {model}; pool {self.settings.get('pool', '1')}",
            "standing": profile.standing,
        }


def start(endpoints: Sequence[Embedded], model: str, folder: Path) -> list[Target]:
    """Starts all of them side by side; their logs go into `folder`. Raises InputError where one doesn't come up."""
    folder.mkdir(parents=True, exist_ok=True)
    started = [(endpoint, _spawn(endpoint, model, folder), _log(folder, endpoint)) for endpoint in endpoints]
    return [_ready(endpoint, process, log, model) for endpoint, process, log in started]


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


def die_with_parent() -> None:
    """Asks the kernel for a SIGTERM when the parent ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _ready(endpoint: Embedded, process: subprocess.Popen[bytes], log: Path, model: str) -> Target:
    limit = time.monotonic() + START
    while time.monotonic() < limit:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                said = json.loads(line)
                return _spec(endpoint, str(said["url"]), model)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise InputError(f"the embedded endpoint didn't start: {last}", where=endpoint.name)


def _spec(endpoint: Embedded, url: str, model: str) -> Target:
    built = build(endpoint.profile, model=model, settings=endpoint.settings)
    return Target(
        name=endpoint.name,
        url=url,
        model=model,
        endpoint_type=endpoint.endpoint_type,
        price_per_hour=built.price,
        watts=built.watts,
    )
