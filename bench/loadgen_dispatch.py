"""Dispatch lateness (started - due) of whole replays: rates and worker processes, against the server of known instants.

Each row is one `phaseload replay` of a Poisson trace, 512-token prompts, four tokens an answer. Server and client share
the machine. Wanted: p99 <= 1 ms at 500 requests/s. Before them, what the machine gives at best: the same timer in a
process that does nothing else. Where that is late as well, others are using the cores (`chrt -f 1` puts a load
generator ahead of them, where the user may).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from loadgen.run.dispatcher import Timer
from reports.store import row_files
from targets.clock import monotonic_ns
from traces.transforms import at_rate

SECONDS = 15
CASES = ((100, 1), (500, 1), (1000, 1), (500, 2), (1000, 2))
WANTED_AT, WANTED_MS = 500, 1.0
EXTRA = json.dumps({"truth": {"ttft_s": 0.05, "gap_s": 0.01, "tokens": 4}})


def write_trace(path: Path, rate: float) -> None:
    due = at_rate(round(rate * SECONDS), rate, seed=1)
    lines = ["due_ns,prompt_tokens,output_tokens", *(f"{instant},512,4" for instant in due)]
    path.write_text("\n".join(lines) + "\n")


def replay(url: str, rate: int, processes: int, folder: Path) -> dict[str, float]:
    trace, run = folder / f"{rate}.csv", folder / f"run-{rate}-{processes}"
    write_trace(trace, rate)
    command = [sys.executable, "-m", "loadgen", "replay", str(trace), "--url", url, "--extra-body", EXTRA]
    command += ["--out", str(run), "--processes", str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stdout + done.stderr)
    rows = row_files.read(run, columns=["due", "started", "outcome"])
    late = (rows["started"].to_numpy() - rows["due"].to_numpy()) / 1e6
    workers = json.loads((run / "run.json").read_text())["workers"]
    cpu = sum(worker["diagnostics"]["cpu_s"] for worker in workers) / len(late)
    failed = sum(outcome != "ok" for outcome in rows["outcome"].to_pylist())
    p50, p99 = np.quantile(late, [0.5, 0.99])
    return {"n": len(late), "failed": failed, "p50": p50, "p99": p99, "max": late.max(), "cpu_us": cpu * 1e6}


def bare(rate: float) -> tuple[float, float]:
    """p50 and p99 (ms) of the timer's own lateness."""
    timer, late = Timer(), []
    start = monotonic_ns() + 10_000_000
    for due in at_rate(round(rate * 5), rate, seed=1):
        while (now := monotonic_ns()) < start + due:
            timer.set(start + int(due))
            timer.wait()
        late.append((now - start - due) / 1e6)
    timer.close()
    return float(np.quantile(late, 0.5)), float(np.quantile(late, 0.99))


def main() -> int:
    print("the bare timer at {}/s: late p50 {:.3f} ms, p99 {:.3f} ms".format(WANTED_AT, *bare(WANTED_AT)))
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(
            [sys.executable, "-m", "targets.reference_server", "--log", "/dev/null"], stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        print("requests/s  processes      n  failed  late p50 ms  p99 ms  max ms  client CPU us/request")
        missed = False
        for rate, processes in CASES:
            found = replay(url, rate, processes, Path(name))
            missed |= rate == WANTED_AT and found["p99"] > WANTED_MS
            print(
                f"{rate:10} {processes:10} {found['n']:6} {found['failed']:7} {found['p50']:12.3f} {found['p99']:7.3f} "
                f"{found['max']:7.2f} {found['cpu_us']:22.0f}",
                flush=True,
            )
        server.terminate()
    print(f"wanted: p99 <= {WANTED_MS} ms at {WANTED_AT}/s: {'missed' if missed else 'met'}")
    return int(missed)
