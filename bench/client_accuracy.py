"""How far the client's instants are from the truth, and what a chunk costs, beside an ordinary client in the same run.

The client is pinned to one core, the known-truth server to another. Errors are |client's instant - write's instant| of
the first token, and |client's TPOT - true TPOT|; CPU is the client process's, requests and all, per streamed chunk.
Streams emit in steps, all of them together, as continuous batching makes them: the client meets bursts, not a drizzle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# name: streams, tokens a second and stream, tokens, rounds, seconds over which the streams start; limits: |TTFT error|
# p50 and p99 (ms), |TPOT error| p99 (us), CPU per chunk (us); is the ordinary client run too?
LOADS: dict[str, tuple[dict[str, Any], tuple[float, float, float, float], bool]] = {
    "64 x 100/s": ({"streams": 64, "rate": 100, "tokens": 100, "rounds": 6, "ramp_s": 1.0}, (0.1, 1.0, 1.0, 26), True),
    "1,000 x 40/s": ({"streams": 1000, "rate": 40, "tokens": 100, "rounds": 2, "ramp_s": 2.4}, (0.1, 1.5, 1, 13), True),
    "10,000 x 2/s": ({"streams": 10000, "rate": 2, "tokens": 100, "rounds": 1, "ramp_s": 10}, (0.1, 2, 1, 14), False),
}


def run(client: str, load: dict[str, Any], *, tls: tuple[str, str] | None = None) -> dict[str, Any]:
    """One client against a fresh truth server, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    log = Path(tempfile.mkdtemp()) / "truth.jsonl"
    command = [sys.executable, "-m", "targets.truth", "--log", str(log), *(("--tls", *tls) if tls else ())]
    server = _pinned(command, cores[-1])
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        gap = 1 / load["rate"]
        truth = {"ttft_s": 0.1, "gap_s": gap, "step_s": gap, "tokens": load["tokens"], **load.get("truth", {})}
        asked = {**load, "url": url, "truth": truth}
        worker = _pinned([sys.executable, "-m", f"bench._client_{client}", json.dumps(asked)], cores[0])
        out, _ = worker.communicate(timeout=300)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    records = {record["id"]: record for record in map(json.loads, log.read_text().splitlines())}
    return judge(json.loads(out), records)


def judge(result: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """Errors in seconds; what the two agree on is counted, nothing is dropped silently."""
    rows = {key: row for key, row in result["rows"].items() if row[0] == "ok"}
    first = np.array([abs(row[1] - truth[key]["first"]) for key, row in rows.items()]) * 1e-9
    spans = [(row[2] - row[1]) - (truth[key]["last"] - truth[key]["first"]) for key, row in rows.items()]
    gaps = np.array([truth[key]["tokens"] - 1 for key in rows])
    chunks = sum(row[3] for row in rows.values())
    emitting = (max(r["last"] for r in truth.values()) - min(r["first"] for r in truth.values())) * 1e-9
    return {
        "requests": len(rows),
        "failed": len(result["rows"]) - len(rows),
        "ttft": np.quantile(first, [0.5, 0.99]),
        "tpot": np.quantile(np.abs(spans) / gaps, [0.5, 0.99]) * 1e-9,
        "shared": sum(row[4] for row in rows.values()) / max(1, len(rows)),
        "merged": 1 - sum(row[5] for row in rows.values()) / max(1, chunks),
        "cpu": result["cpu_s"] / max(1, chunks),
        "rate": chunks / emitting,
        "late": np.quantile([record["late_ns"] for record in truth.values()], [0.5, 0.99]) * 1e-9,
        "grown": result["grown_kb"] / 1024,
        "facts": result.get("facts", {}),
    }


def _pinned(command: list[str], core: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )


HEADER = (
    f"{'load':<14}{'client':<16}{'chunks/s':>9}{'TTFT error p50':>16}{'p99':>9}{'TPOT error p99':>16}"
    f"{'CPU/chunk':>11}{'shared':>8}{'merged':>8}{'server late p99':>17}"
)


def line(name: str, client: str, figures: dict[str, Any]) -> str:
    ttft, tpot = figures["ttft"] * 1e3, figures["tpot"] * 1e6
    failed = f"  {figures['failed']} FAILED" if figures["failed"] else ""
    return (
        f"{name:<14}{client:<16}{figures['rate']:>9,.0f}{ttft[0]:>13.3f} ms{ttft[1]:>6.2f} ms{tpot[1]:>13.2f} us"
        f"{figures['cpu'] * 1e6:>8.1f} us{figures['shared']:>8.1%}{figures['merged']:>8.1%}"
        f"{figures['late'][1] * 1e3:>14.2f} ms{failed}"
    )


def within(figures: dict[str, Any], limits: tuple[float, float, float, float]) -> bool:
    found = (*figures["ttft"] * 1e3, figures["tpot"][1] * 1e6, figures["cpu"] * 1e6)
    return not figures["failed"] and all(value <= limit for value, limit in zip(found, limits, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_accuracy")
    parser.add_argument("--load", choices=LOADS, action="append")
    parser.add_argument("--ours-only", action="store_true")
    asked = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    beyond = 0
    print(HEADER)
    for name in asked.load or LOADS:
        load, limits, peer = LOADS[name]
        ours = run("ours", load)
        print(line(name, "phaseload", ours), flush=True)
        if not within(ours, limits):
            beyond += 1
            p50, p99, tpot, cpu = limits
            print(f"    beyond its limits: TTFT p50 {p50}, p99 {p99} ms, TPOT p99 {tpot} us, CPU {cpu} us")
        if peer and not asked.ours_only:
            theirs = run("aiohttp", load)
            print(line(name, "aiohttp + json", theirs), flush=True)
            error, ratio = theirs["ttft"][0] / ours["ttft"][0], ours["cpu"] / theirs["cpu"]
            print(f"    ours: TTFT error p50 {error:,.0f} times smaller, CPU {ratio:.2f} of theirs", flush=True)
    return beyond


if __name__ == "__main__":
    sys.exit(main())
