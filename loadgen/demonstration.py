"""The demonstration: a bake-off of three simulated endpoints, which are started on this machine for it.

Embedded endpoints are fresh interpreters of their own, and never outlive this process. They must not be forked:
Locust's monkey-patch would be inherited. The kernel sends each one a signal when its parent dies (PR_SET_PDEATHSIG), so
it ends with the run however that ends, kill -9 included; and each is a session of its own, so that Ctrl-C ends the run
and not the servers that it is measuring.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from reports.store.run_json import EmbeddedFacts
from targets.linux import die_with_parent
from targets.simulated.analysis import pool
from targets.simulated.build import SimulatedTarget
from targets.simulated.profiles import load as load_profile
from targets.target import Target
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace

from .options import Load
from .rounds import Ladder

WORDS = (
    "This was a demonstration: the endpoints were simulated on this machine. Their constants and where they come from "
    "are in the report; put your own in their place with --target NAME=URL."
)
ONE_ROUND = "One round names no winner of a tail (p99): that takes five, --rounds 5."
MODEL = "llama2-7b"
CONTEXT = 4096
USE = 0.6  # of each pool at the base rate
SAMPLED = 2000  # requests from which the pools' sizes are computed

START_S = 30.0  # that an endpoint may take to accept connections


@dataclass(frozen=True)
class Embedded(SimulatedTarget):
    """A simulated endpoint of a bake-off, served in real time."""

    endpoint_type: str = "chat"

    def facts(self, model: str) -> EmbeddedFacts:
        profile = load_profile(self.profile)
        pool = self.settings.get("pool", "1")
        return EmbeddedFacts(f"simulated: {profile.description}; {model}; pool {pool}", profile.standing)


# The three ways of serving that the paper compares (docs/design.md).
THREE = (
    Embedded("a100", "a100"),
    Embedded("groqrack", "groqrack", endpoint_type="groq"),
    Embedded("a100+groqrack", "disaggregated", endpoint_type="dynamo"),
)
# A light step, where each GPU has one sequence at a time; at least 500 counted requests in the base step, so that p99
# can be bounded; and an overload. All of it within 100 s on two cores.
WORKLOAD = "azure-conv"
UNSTARTED = "http://127.0.0.1"  # an endpoint's place before it has a port
LOAD = Load(request_rate=17.5, duration=32.0, warmup=3.0, drain_timeout=20.0, max_context=CONTEXT)
LADDER = Ladder((0.1, 1.0, 3.0), speedup=True, step_s=7.0)


def load_of(given: Mapping[str, Any], *, own_trace: bool) -> Load:
    """The demonstration's load, but for the fields that the user gave; its rate is its own workload's."""
    base = replace(LOAD, request_rate=None) if own_trace or "concurrency" in given else LOAD
    return replace(base, **given)


def sized(endpoints: Sequence[Embedded], trace: Trace | str | Path, load: Load, model: str = MODEL) -> list[Embedded]:
    """The endpoints with pools that the load uses to about USE."""
    requests = load.requests(trace)
    rate = load.request_rate or len(requests) * NS_PER_S / max(requests.span, NS_PER_S)
    sample = list(requests[:SAMPLED])
    pools = [pool(each.profile, sample, rate, use=USE, model=model, settings=each.settings) for each in endpoints]
    return [
        replace(each, settings={**each.settings, "pool": size}) for each, size in zip(endpoints, pools, strict=True)
    ]


def target_of(endpoint: Embedded, url: str, model: str) -> Target:
    built = endpoint.build(model)
    kind = endpoint.endpoint_type
    return Target(endpoint.name, url, model, kind, price_per_hour=built.price, watts=built.watts)


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
    settings = [f"--set={key}={value}" for key, value in endpoint.settings.items()]
    command = [sys.executable, "-P", "-m", "targets.simulated", endpoint.profile, "--model", model, *settings]
    with path.open("wb") as log:
        return Popen(
            command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )


def _ready(endpoint: Embedded, process: Popen[bytes], log: Path, model: str) -> Target:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                return target_of(endpoint, str(json.loads(line)["url"]), model)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    last_line = (log.read_text(errors="replace").strip().splitlines() or ["its log is empty"])[-1]
    raise InputError(f"the embedded endpoint didn't start: {last_line}", where=endpoint.name)
