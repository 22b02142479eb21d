"""A whole replay at 60k chunks/s, unhurried: is the run valid, and are its figures true?

1,000 streams of 60 tokens/s through one process of `phaseload replay`, on one core; the server of known instants on
another. Valid is the run's own verdict; true is p50 and p99 of TTFT and TPOT, from its rows, beside the server's log.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.selftest import busiest, pinned
from reports.store import row_files

STREAMS, RATE, TOKENS, RAMP = 1000, 60, 900, 10
EMIT = {"ttft_s": 0.1, "gap_s": 1 / RATE}
# Seconds from the truth, which for TTFT begins when the server reads the request, up to a burst of tokens later.
WANTED = {"ttft p50": 1e-3, "ttft p99": 1.5e-3, "tpot p50": 1e-6, "tpot p99": 1e-6}


def write_trace(path: Path) -> None:
    due = (np.arange(STREAMS) * RAMP / STREAMS * 1e9).astype(int)
    path.write_text("due_ns,prompt_tokens,output_tokens\n" + "".join(f"{at},64,{TOKENS}\n" for at in due))


def replay(folder: Path, cores: tuple[int, int]) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the server's log."""
    log, emit = folder / "truth.jsonl", json.dumps(EMIT)
    server = pinned(
        [sys.executable, "-m", "targets.reference_server", "--log", str(log), "--emit", emit], cores[1], ahead=True
    )
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    command = [sys.executable, "-m", "loadgen", "replay", str(folder / "t.csv"), "--url", url, "-m", "m"]
    os.environ["XDG_STATE_HOME"] = str(folder)  # no certificate is to speak here
    client = pinned([*command, "--warmup", "0", "--out", str(folder / "run")], cores[0], ahead=True)
    client.communicate()
    server.terminate()
    server.communicate()
    return client.returncode, [json.loads(line) for line in log.read_text().splitlines()]


def figures(folder: Path, log: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Ours and the truth, in seconds, over the same requests."""
    truth = {record["id"]: record for record in log}
    rows = row_files.read(folder / "run", columns=["request_id", "sent", "token_at"]).to_pylist()
    ours, theirs = [], []
    for row in rows:
        record, at = truth[row["request_id"]], row["token_at"]
        ours.append((at[0] - row["sent"], (at[-1] - at[0]) / (TOKENS - 1)))
        # Between the two clocks lies only the way of the request, microseconds on loopback.
        theirs.append((record["first"] - record["received"], (record["last"] - record["first"]) / (TOKENS - 1)))
    found = {}
    for column, name in enumerate(("ttft", "tpot")):
        for p in (50, 99):
            pair = [float(np.percentile(np.array(side)[:, column], p)) * 1e-9 for side in (ours, theirs)]
            found[f"{name} p{p}"] = (pair[0], pair[1])
    return found


def main() -> int:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trace(folder / "t.csv")
        code, log = replay(folder, (cores[0], cores[-1]))
        summary = json.loads((folder / "run" / "summary.json").read_text())
        found = figures(folder, log)
    validity = summary["validity"]
    print(f"{STREAMS:,} streams, {busiest(log):,.0f} chunks/s in the busiest second: {validity['status']} ({code})")
    for reason in validity["reasons"]:
        print(f"    {reason['status']}: {reason['text']}")
    missed = code != 0 or validity["status"] != "valid"
    for key, (ours, theirs) in found.items():
        missed |= abs(ours - theirs) > WANTED[key]
        print(f"    {key}  {ours * 1e3:10.4f} ms   the truth {theirs * 1e3:10.4f} ms")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
