"""The certificate: what `phaseload certify` measured on this machine, and whether a run went beyond it.

One JSON file in the user's state folder ($XDG_STATE_HOME or ~/.local/state, phaseload/certificate.json):
{"created", "machine", "steps": [figures of loadgen.selftest.judge + {"streams", "asked", "verdict"}],
"safe": [{"streams", "rate"}]}: loads that were measured, each of which covers what has no more of either.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targets.client.diagnostics import Certified, Diagnostics, SafeLoad

from . import selftest
from .machine import cpu

# What a load must hold to be safe: seconds of |TTFT error| p99 and |TPOT error| p99, and the share of first tokens
# that came in one read with others, beyond which brackets open (reports/analysis/validity.py).
TTFT, TPOT, SHARED = 0.0015, 0.00001, 0.01
SAFE, LIMIT, SERVER, BUSY = "safe", "limit", "server", "busy"  # verdicts on a step
FULL = 0.85  # share of its core that a client at its limit takes
GIVEN = 0.9  # share of the rate asked for, below which the server was behind
WAITED = 0.05  # share of the time without a core, above which the machine was busy
SLACK = 1.1  # this much more than what was measured is let pass


PATIENCE_S = 50.0  # no step is begun after them
# Steps of about five seconds: streams, tokens a second and stream.
STEPS: list[dict[str, Any]] = [
    {"streams": streams, "rate": rate, "tokens": max(10, 3 * rate), "rounds": 1, "ramp_s": 0.5}
    for streams, rate in (
        (64, 100), (256, 50), (1000, 20), (1000, 40), (2000, 20), (1000, 60), (2000, 40), (4000, 20), (2000, 60),
    )
]  # fmt: skip
QUICK = [{**step, "tokens": step["rate"]} for step in (STEPS[0], STEPS[2], STEPS[3])]


def certify(*, quick: bool = False, on_step: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Measures the client on this machine, step by step, and saves the certificate where some load was safe, unless
    the machine was too busy for the first step. Returns the steps; `on_step` gets the load of each in words before it
    is measured."""
    steps = list(measured(QUICK if quick else STEPS, on_step or (lambda _: None)))
    if steps[0]["verdict"] != BUSY and allowed(steps):
        save(steps, datetime.now(UTC).isoformat(timespec="seconds"))
    return steps


def measured(loads: Sequence[Mapping[str, Any]], on_step: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Each load with its figures and verdict, until two in a row aren't safe: more will not be better. A busy machine
    ends nothing for a while: it may be idle again."""
    unsafe, began = 0, time.monotonic()
    for load in loads:
        if time.monotonic() - began > PATIENCE_S:
            return
        words = f"{load['streams']:,} streams x {load['rate']}/s"
        on_step(words)
        step = _tried(load)
        if step["verdict"] != SAFE:
            on_step(f"{words}, once more")
            step = _tried(load)
        yield step
        unsafe = 0 if step["verdict"] in (SAFE, BUSY) else unsafe + 1
        if unsafe == 2:
            return


def _tried(load: Mapping[str, Any]) -> dict[str, Any]:
    asked = load["streams"] * load["rate"]
    step = {**selftest.measure(load), "streams": load["streams"], "asked": asked}
    return {**step, "verdict": verdict(step)}


def path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "phaseload" / "certificate.json"


def machine() -> dict[str, Any]:
    """What the certificate holds for: another machine's is not cited."""
    return {"cpu": cpu(), "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def safe(figures: Mapping[str, Any]) -> bool:
    return (
        not figures["failed"]
        and figures["ttft"][1] <= TTFT
        and figures["tpot"][1] <= TPOT
        and figures["shared"] <= SHARED
    )


def verdict(step: Mapping[str, Any]) -> str:
    """SAFE, or why not: the client's core was full (LIMIT), the server could give no more, or others had the machine:
    a client that had time left and was late all the same didn't have its core when it needed it."""
    if safe(step):
        return SAFE
    if step["core"] >= FULL:
        return LIMIT
    return SERVER if step["rate"] < GIVEN * step["asked"] and step["waited"] <= WAITED else BUSY


def allowed(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The safe loads that no other one covers."""
    found = [{"streams": step["streams"], "rate": step["rate"]} for step in steps if step["verdict"] == SAFE]
    return [one for one in found if not any(covers(other, one) for other in found if other is not one)]


def covers(load: Mapping[str, float], other: Mapping[str, float], slack: float = 1.0) -> bool:
    return all(other[name] <= slack * load[name] for name in ("streams", "rate"))


def save(steps: list[dict[str, Any]], created: str) -> Path:
    """Writes the certificate."""
    where = path()
    where.parent.mkdir(parents=True, exist_ok=True)
    about = {"created": created, "machine": machine(), "steps": steps, "safe": allowed(steps)}
    where.write_text(json.dumps(about, indent=2))
    return where


def load() -> dict[str, Any] | None:
    """This machine's certificate; None where there is none, or it is another machine's or can't be read."""
    try:
        found: dict[str, Any] = json.loads(path().read_text())
        fits = all(load["rate"] > 0 and load["streams"] > 0 for load in found["safe"])
        return found if fits and found["machine"] == machine() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cite(diagnostics: Diagnostics) -> Diagnostics:
    """A process's diagnostics, and with them what its machine is certified for and why it went beyond ("": it didn't).

    Nothing is added where there is no certificate: that a run is within one is a claim that needs one.
    """
    certificate = load()
    if certificate is None:
        return diagnostics
    safe = tuple(SafeLoad(load["streams"], load["rate"]) for load in certificate["safe"])
    why = beyond(certificate["safe"], diagnostics)
    return replace(diagnostics, certificate=Certified(certificate["created"], safe), beyond_certificate=why)


def beyond(safe: Sequence[Mapping[str, float]], diagnostics: Diagnostics) -> str:
    """Why a process's load lies beyond what is safe, in one line; "" where one of the safe loads covers it."""
    load = {"streams": diagnostics.most_streams, "rate": diagnostics.most_tokens_per_s}
    if any(covers(one, load, SLACK) for one in safe):
        return ""
    return f"a process read {in_words([load])}; this machine is certified for {in_words(safe) or 'nothing'}"


def in_words(loads: Sequence[Mapping[str, float]]) -> str:
    return ", or ".join(f"{load['rate']:,.0f} chunks/s of {load['streams']:,.0f} streams" for load in loads)
