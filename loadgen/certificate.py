"""The certificate: what `phaseload certify` measured on this machine, and whether a run went beyond it.

One JSON file in the user's state folder ($XDG_STATE_HOME or ~/.local/state, phaseload/certificate.json):
{"created", "machine", "steps": [figures of loadgen.selftest.judge + {"streams", "asked", "verdict"}],
"safe": [{"streams", "rate"}]}: loads that were measured, each of which covers what has no more of either.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .machine import cpu

# What a load must hold to be safe: seconds of |TTFT error| p99 and |TPOT error| p99, and the share of first tokens
# that came in one read with others, beyond which brackets open (reports/analysis/validity.py).
TTFT, TPOT, SHARED = 0.0015, 0.00001, 0.01
SAFE, LIMIT, SERVER, BUSY = "safe", "limit", "server", "busy"  # verdicts on a step
FULL = 0.85  # share of its core that a client at its limit takes
GIVEN = 0.9  # share of the rate asked for, below which the server was behind
WAITED = 0.05  # share of the time without a core, above which the machine was busy
SLACK = 1.1  # this much more than what was measured is let pass


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


def cite(diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    """A process's diagnostics, and with them what its machine is certified for and why it went beyond ("": it didn't).

    Nothing is added where there is no certificate: that a run is within one is a claim that needs one.
    """
    found = load()
    if found is None:
        return dict(diagnostics)
    cited = {"created": found["created"], "safe": found["safe"]}
    return {**diagnostics, "certificate": cited, "beyond_certificate": beyond(found["safe"], diagnostics)}


def beyond(safe: Sequence[Mapping[str, float]], diagnostics: Mapping[str, Any]) -> str:
    """Why a process's load lies beyond what is safe, in one line; "" where one of the safe loads covers it."""
    load = {"streams": diagnostics.get("most_streams", 0), "rate": diagnostics.get("most_tokens_per_s", 0)}
    if any(covers(one, load, SLACK) for one in safe):
        return ""
    return f"a process read {told([load])}; this machine is certified for {told(safe) or 'nothing'}"


def told(loads: Sequence[Mapping[str, float]]) -> str:
    return ", or ".join(f"{load['rate']:,.0f} chunks/s of {load['streams']:,.0f} streams" for load in loads)
