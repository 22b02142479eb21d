"""The two drivers, and our client, held against each other over a minute of Azure conversations; and how punctual the
server is at 2,000 and 20,000 tokens a second on one core.

Planned instants of both drivers within 0.1 %; our client's TTFT and TPOT p50 within 0.2 ms of the server's own log of
actual instants; steps begin <= 2 ms late at p99 and their last token leaves <= 2 ms + 25 us a stream after the plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from targets.simulated.build import build
from targets.simulated.engine.job import Job

from .simulated_speed import SHARED

PLANNED, CLIENT_MS, LATE_MS, STREAM_US = 1e-3, 0.2, 2.0, 25.0
SECONDS = "60"


@contextmanager
def serving(log: Path, *options: str, core: int | None = None):
    """A simulated endpoint that logs; the core that it may use."""
    command = [sys.executable, "-m", "targets.simulated", *options, "--log", str(log)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: alone(core)) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def alone(core: int | None) -> None:
    """On that core, before all else that wants it, where we may: or the machine's other work is what is measured."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def privileged() -> bool:
    """May processes be given real-time priority here?"""
    return subprocess.run([sys.executable, "-c", ""], preexec_fn=_try).returncode == 0


def _try() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        os._exit(1)


def main() -> bool:
    print(f"servers and clients at {'real-time' if privileged() else 'ordinary'} priority")
    with tempfile.TemporaryDirectory() as folder:
        missed = [agreement(Path(folder), "a100", "chat", "pool=3")]
        missed += [agreement(Path(folder), "groqrack", "groq", "pool=14")]
        missed += [
            punctuality(Path(folder), *case) for case in ((("a100",), 37, 600), (("b200", "--pool", "3"), 180, 800))
        ]
    return any(missed)


def agreement(folder: Path, name: str, wire: str, setting: str) -> bool:
    trace = str(SHARED) if SHARED.exists() else "azure-conv"
    log, out = folder / f"{name}.jsonl", folder / name
    cores = sorted(os.sched_getaffinity(0))
    with serving(log, name, "--set", setting, core=cores[0]) as url:
        command = [sys.executable, "-m", "loadgen", "replay", trace, "--url", url, "-m", "llama2-7b"]
        command += ["--endpoint-type", wire, "--duration", SECONDS, "--max-context", "4096", "--out", str(out)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, preexec_fn=lambda: alone(cores[-1]), **quiet)
    rows = sorted(requests(log), key=lambda row: row["arrival"])
    worst = against_virtual(name, setting, rows)
    pairs = matched(rows, out)
    ttft, theirs_ttft = (np.median([pair[who] for pair in pairs]) for who in (0, 1))
    tpot, theirs_tpot = (np.median([pair[who] for pair in pairs if pair[who] is not None]) for who in (2, 3))
    print(f"{name} ({setting}), {len(rows)} requests: planned instants differ by {worst:.1e} at most (limit {PLANNED})")
    print(f"  TTFT p50: client {ttft:.3f} ms, server {theirs_ttft:.3f} ms; TPOT p50: {tpot:.4f}, {theirs_tpot:.4f} ms")
    return worst > PLANNED or abs(ttft - theirs_ttft) > CLIENT_MS or abs(tpot - theirs_tpot) > CLIENT_MS


def requests(log: Path) -> list[dict]:
    return [row for row in map(json.loads, log.read_text().splitlines()) if "id" in row]


def against_virtual(name: str, setting: str, rows: list[dict]) -> float:
    """Largest relative difference of planned TTFT and end-to-end time between the server and virtual time."""
    endpoint = build(name, settings=dict([setting.split("=")]))
    origin = rows[0]["arrival"]
    jobs = []
    for number, row in enumerate(rows):
        now = (row["arrival"] - origin) * 1e-9
        endpoint.queue.run(now)
        jobs.append(Job(number, now, row["prompt"], row["output"], lambda job, now: None))
        endpoint.station.submit(jobs[-1], now)
    endpoint.queue.run(inf)
    worst = 0.0
    for job, row in zip(jobs, rows, strict=True):
        for virtual, planned in zip((job.first, job.last), row["planned"], strict=True):
            real = (planned - row["arrival"]) * 1e-9
            worst = max(worst, abs(virtual - job.arrival - real) / real)
    return worst


def matched(rows: list[dict], run: Path) -> list[tuple[float, float, float | None, float | None]]:
    """(client's TTFT, server's, client's TPOT, server's) in ms of each request that both saw, by its id."""
    table = pq.read_table(run / "exchanges", columns=["request_id", "sent", "token_at", "usage_output", "outcome"])
    client = {row["request_id"]: row for row in table.to_pylist()}
    assert all(row["outcome"] == "ok" for row in client.values())
    found = []
    for row in rows:
        if mine := client.get(row["id"]):
            ttft = (mine["token_at"][0] - mine["sent"], row["actual"][0] - row["received"])
            later = row["output"] - 1
            spans = (mine["token_at"][-1] - mine["token_at"][0], row["actual"][1] - row["actual"][0])
            tpot = [span * 1e-6 / later if later else None for span in spans]
            found.append((ttft[0] * 1e-6, ttft[1] * 1e-6, *tpot))
    assert len(found) == len(client), "requests that the server never saw"
    return found


def punctuality(folder: Path, options: tuple[str, ...], streams: int, tokens: int) -> bool:
    cores = sorted(os.sched_getaffinity(0))
    log = folder / "steps.jsonl"
    with serving(log, *options, core=cores[0]) as url:
        drain = [sys.executable, str(Path(__file__).parent / "_drain.py"), url, str(streams), str(tokens), "20"]
        subprocess.run(drain, check=True, preexec_fn=lambda: alone(cores[-1]))
    steps = [row["step"] for row in map(json.loads, log.read_text().splitlines()) if "step" in row]
    planned, begun, ended, count = np.array(steps, float).T
    rate = count.sum() / (ended[-1] - planned[0]) * 1e9
    late = np.quantile((begun - planned) * 1e-6, 0.99)
    excess = np.quantile((ended - planned) * 1e-6 - count * STREAM_US * 1e-3, 0.99)
    cost = np.median((ended - begun)[count > streams / 4] * 1e-3 / count[count > streams / 4])
    print(f"{' '.join(options)}, {streams} streams, {rate:,.0f} tokens/s on one core: steps begin {late:.2f} ms late")
    print(f"  at p99, their last token leaves {excess:.2f} ms after 25 us a stream at p99 (limits {LATE_MS} ms);")
    print(f"  {cost:.1f} us from one stream of a step to the next")
    return late > LATE_MS or excess > LATE_MS
