"""A client that is starved of its core must say so: the run is invalid, exit code 3, with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reports.store import row_files

LOOPS = 12
EXTRA = json.dumps({"truth": {"ttft_s": 0.01, "gap_s": 0.001, "tokens": 40}})


def pinned(command: list[str], core: int, **more: Any) -> subprocess.Popen[str]:
    pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    return subprocess.Popen(command, preexec_fn=pin, text=True, **more)


def wait_for_the_start(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        about = run / "run.json"
        if about.exists() and json.loads(about.read_text())["phases"]:
            return
        time.sleep(0.05)
    raise AssertionError("the replay never began")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a second core for the server")
def test_busy_loops_on_the_clients_core_make_the_run_invalid(tmp_path: Path, truth: Any) -> None:
    lines = ["due_ns,prompt_tokens,output_tokens", *(f"{index * 10_000_000},8,40" for index in range(400))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "loadgen", "replay", "t.csv", "--url", truth.url, "-m", "m", "--out", "run"]
    core = min(os.sched_getaffinity(0))
    replay = pinned([*command, "--extra-body", EXTRA], core, cwd=tmp_path, stdout=subprocess.PIPE)
    loops: list[subprocess.Popen[str]] = []
    try:
        wait_for_the_start(tmp_path / "run", replay)
        loops += [pinned(["sh", "-c", "while :; do :; done"], core) for _ in range(LOOPS)]
        time.sleep(4)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        out, _ = replay.communicate(timeout=60)
    rows = row_files.read(tmp_path / "run")
    firsts = [events[0] for events in rows["token_events"].to_pylist() if events]
    assert sum(count > 1 for count in firsts) > 0.01 * len(firsts), "it was not starved: the test proves nothing"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["validity"]["status"] == "invalid"
    assert replay.returncode == 3
    reasons = json.dumps(summary["validity"])
    assert "leave it a core" in reasons, "what to change"
    assert "invalid" in out
