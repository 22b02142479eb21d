"""The certificate: how much load one process of this machine measures truly, and whether a run went beyond that.

`certify` measures it, against a server whose emission instants are known (`loadgen.selftest`); later runs cite it. It
is one JSON file in the user's state folder ($XDG_STATE_HOME or ~/.local/state, phaseload/certificate.json).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from reports.store.run_json import MachineFacts
from targets.exchange import FULL, WAITED, Certified, Diagnostics, SafeLoad
from traces.errors import InputError
from traces.typed_json import from_json, to_json

from . import selftest
from .selftest import ClientLoad, Figures

# What a load must hold to be safe: seconds of |TTFT error| p99 and |TPOT error| p99, and the share of first tokens
# that came in one read with others, beyond which brackets open (reports/analysis/validity.py).
TTFT_S, TPOT_S, SHARED = 0.0015, 0.00001, 0.01
SAFE, LIMIT, SERVER, BUSY = "safe", "limit", "server", "busy"  # verdicts on a step
GIVEN = 0.9  # share of the planned rate, below which the server was behind
SLACK = 1.1  # this much more than what was measured is let pass
PATIENCE_S = 50.0  # no step is begun after them

# Steps of about five seconds: streams, tokens a second and stream.
STEPS = [
    ClientLoad(streams, rate, tokens=max(10, 3 * rate))
    for streams, rate in (
        (64, 100), (256, 50), (1000, 20), (1000, 40), (2000, 20), (1000, 60), (2000, 40), (4000, 20), (2000, 60),
    )
]  # fmt: skip
QUICK = [replace(load, tokens=round(load.rate)) for load in (STEPS[0], STEPS[2], STEPS[3])]
PACKAGES = ("phaseload", "locust", "gevent", "numpy", "pyarrow", "fastdigest", "httptools", "orjson")


@dataclass(frozen=True)
class Machine:
    """What a certificate holds for: another machine's is not cited."""

    cpu: str
    cores: int | None
    kernel: str
    python: str


@dataclass(frozen=True)
class CertifiedStep(Figures):
    """The figures of one load of `streams`, of which `asked` chunks a second were planned, and the verdict on it."""

    streams: int
    asked: float
    verdict: str


@dataclass(frozen=True)
class Certificate:
    """What was measured, when (ISO) and where. `safe` is empty where no load was safe, or the machine too busy."""

    created: str
    machine: Machine
    steps: tuple[CertifiedStep, ...]
    safe: tuple[SafeLoad, ...]


def certify(*, quick: bool = False, on_step: Callable[[str], None] | None = None) -> Certificate:
    """Measures the client on this machine, in about a minute (`quick`: 15 s), and saves the certificate if some load
    is safe and the machine was idle enough for the first step. `on_step` gets each load, in words, before it is
    measured. Raises RunFailed."""
    steps = tuple(_measured(QUICK if quick else STEPS, on_step or (lambda _: None)))
    safe = () if steps[0].verdict == BUSY else allowed(steps)
    certificate = Certificate(datetime.now(UTC).isoformat(timespec="seconds"), machine(), steps, safe)
    if safe:
        save(certificate)
    return certificate


def _measured(loads: Sequence[ClientLoad], on_step: Callable[[str], None]) -> Iterator[CertifiedStep]:
    """Each load with its figures and verdict, until two in a row aren't safe: more will not be better. A busy machine
    ends nothing for a while: it may be idle again."""
    unsafe, began = 0, time.monotonic()
    for load in loads:
        if time.monotonic() - began > PATIENCE_S:
            return
        planned = load.streams * load.rate
        for again in ("", ", once more"):
            on_step(f"{load.streams:,} streams x {load.rate:g}/s{again}")
            figures = selftest.measure(load)
            if (outcome := verdict(figures, planned)) == SAFE:
                break
        yield CertifiedStep(**vars(figures), streams=load.streams, asked=planned, verdict=outcome)
        unsafe = 0 if outcome in (SAFE, BUSY) else unsafe + 1
        if unsafe == 2:
            return


def verdict(figures: Figures, planned: float) -> str:
    """SAFE, or why not: the client's core was full (LIMIT), the server could give no more of the `planned` chunks/s, or
    others had the machine: a client that had time left and was late all the same didn't have its core when it needed
    it."""
    exact = figures.ttft[1] <= TTFT_S and figures.tpot[1] <= TPOT_S and figures.shared <= SHARED
    if exact and not figures.failed:
        return SAFE
    if figures.core >= FULL:
        return LIMIT
    return SERVER if figures.rate < GIVEN * planned and figures.waited <= WAITED else BUSY


def allowed(steps: Sequence[CertifiedStep]) -> tuple[SafeLoad, ...]:
    loads = [SafeLoad(step.streams, step.rate) for step in steps if step.verdict == SAFE]
    return tuple(load for load in loads if not any(other.covers(load) for other in loads if other is not load))


def in_words(loads: Sequence[SafeLoad]) -> str:
    return ", or ".join(map(str, loads))


def path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "phaseload" / "certificate.json"


def machine() -> Machine:
    return Machine(cpu(), os.cpu_count(), platform.release(), platform.python_version())


def machine_facts() -> MachineFacts:
    system, usable_cores = f"{platform.system()} {platform.release()}", len(os.sched_getaffinity(0))
    return MachineFacts(platform.node(), system, cpu(), os.cpu_count(), usable_cores)


def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def save(certificate: Certificate) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_bytes(to_json(certificate))


def load() -> Certificate | None:
    """This machine's certificate; None where there is none, or it is another machine's or can't be read."""
    try:
        certificate = from_json(Certificate, path().read_bytes(), str(path()))
    except (OSError, InputError):
        return None
    usable = all(safe.rate > 0 and safe.streams > 0 for safe in certificate.safe)
    return certificate if usable and certificate.machine == machine() else None


def cite(diagnostics: Diagnostics) -> Diagnostics:
    """A process's diagnostics, and with them what its machine is certified for and why it went beyond ("": it didn't).
    Nothing is added where there is no certificate: that a run is within one is a claim that needs one."""
    certificate = load()
    if certificate is None:
        return diagnostics
    citation = Certified(certificate.created, certificate.safe)
    return replace(diagnostics, certificate=citation, beyond_certificate=beyond(certificate.safe, diagnostics))


def beyond(safe: Sequence[SafeLoad], diagnostics: Diagnostics) -> str:
    """Why a process's load lies beyond what is safe, in one line; "" where one of the safe loads covers it."""
    load = SafeLoad(diagnostics.most_streams, diagnostics.most_tokens_per_s)
    if any(each.covers(load, SLACK) for each in safe):
        return ""
    return f"a process read {load}; this machine is certified for {in_words(safe) or 'nothing'}"
