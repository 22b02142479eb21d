"""The certificate: what `phaseload certify` measured on this machine, and whether a run went beyond it.

One JSON file in the user's state folder ($XDG_STATE_HOME or ~/.local/state, phaseload/certificate.json):
{"created", "machine", "steps": [figures of loadgen.selftest.judge + {"streams", "safe"}], "safe": {"streams", "rate"}}.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .machine import cpu

# What a load must hold to be safe: seconds of |TTFT error| p99 and |TPOT error| p99, and the share of first tokens
# that came in one read with others, beyond which brackets open (reports/validity.py).
TTFT, TPOT, SHARED = 0.0015, 0.00001, 0.01


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


def save(steps: list[dict[str, Any]], created: str) -> Path:
    """Writes the certificate; the highest safe step is what it allows."""
    best = max((step for step in steps if step["safe"]), key=lambda step: step["rate"], default=None)
    allowed = {
        "streams": max((step["streams"] for step in steps if step["safe"]), default=0),
        "rate": best["rate"] if best else 0.0,
    }
    where = path()
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps({"created": created, "machine": machine(), "steps": steps, "safe": allowed}, indent=2))
    return where


def load() -> dict[str, Any] | None:
    """This machine's certificate; None where there is none, or it is another machine's or can't be read."""
    try:
        found: dict[str, Any] = json.loads(path().read_text())
        return found if found["machine"] == machine() and found["safe"]["rate"] >= 0 else None
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


def beyond(safe: Mapping[str, float], diagnostics: Mapping[str, Any]) -> str:
    """Why a process's load lies beyond what is safe, in one line; "" where it doesn't. A tenth more is let pass."""
    rate, streams = diagnostics.get("most_reads_per_s", 0), diagnostics.get("most_streams", 0)
    if rate > 1.1 * safe["rate"]:
        return f"a process read {rate:,.0f} chunks/s; this machine is certified for {safe['rate']:,.0f}"
    if streams > 1.1 * safe["streams"]:
        return f"a process had {streams:,} streams open; this machine is certified for {safe['streams']:,.0f}"
    return ""
