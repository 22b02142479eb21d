"""What other load generators report of the same truth, beside ours: aiperf and guidellm, where they are installed.

64 requests at a time, 256 in all, 100 tokens each: the first after 100 ms, then one every 10 ms, all streams together.
True figures are the server's own (last byte of the request to the first token's write). Programs are looked for on PATH
or named by $AIPERF and $GUIDELLM; $TOKENIZER is a local tokenizer's folder, which both want (tests/real/tiny_model.py
makes one). Client on the first core, server on the last; CPU is all that the program took, its start included.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

AT_ONCE, REQUESTS, TOKENS = 64, 256, 100
EMIT = {"ttft_s": 0.1, "gap_s": 0.01, "step_s": 0.01, "tokens": TOKENS}
Figures = tuple[float, float, float, float]  # TTFT p50, p99; TPOT p50, p99: ms


def aiperf(program: str, url: str, tokenizer: str, folder: Path) -> Figures:
    command = [program, "profile", "-m", "truth", "--url", url, "--endpoint-type", "chat", "--streaming"]
    command += ["--concurrency", str(AT_ONCE), "--request-count", str(REQUESTS), "--tokenizer", tokenizer]
    command += ["--synthetic-input-tokens-mean", "8", "--ui-type", "none", "--artifact-dir", str(folder)]
    _run(command)
    told = json.loads((folder / "profile_export_aiperf.json").read_text())
    ttft, tpot = told["time_to_first_token"], told["inter_token_latency"]
    return ttft["p50"], ttft["p99"], tpot["p50"], tpot["p99"]


def guidellm(program: str, url: str, tokenizer: str, folder: Path) -> Figures:
    out = folder / "out.json"
    command = [program, "run", "--backend", f"kind=openai_http,target={url},model=truth", "--disable-console"]
    command += [
        "--profile",
        f"kind=concurrent,streams={AT_ONCE}",
        "--constraint",
        f"kind=max_requests,count={REQUESTS}",
    ]
    command += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}", "--output", f"kind=json,path={out}"]
    _run([*command, "--data", f"kind=synthetic_text,prompt_tokens=8,output_tokens={TOKENS}"])
    told = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    ttft, tpot = (
        told[f"{name}_ms"]["successful"]["percentiles"] for name in ("time_to_first_token", "inter_token_latency")
    )
    return ttft["p50"], ttft["p99"], tpot["p50"], tpot["p99"]


def phaseload(program: str, url: str, tokenizer: str, folder: Path) -> Figures:
    load = {"streams": AT_ONCE, "rounds": REQUESTS // AT_ONCE, "tokens": TOKENS, "ramp_s": 0, "url": url, "truth": {}}
    rows = json.loads(_run([program, "-m", "loadgen.selftest", json.dumps(load)]))["rows"].values()
    ttft = [(row["first"] - row["sent"]) / 1e6 for row in rows]
    tpot = [(row["last"] - row["first"]) / 1e6 / (TOKENS - 1) for row in rows]
    return *np.quantile(ttft, [0.5, 0.99]), *np.quantile(tpot, [0.5, 0.99])


PEERS: dict[str, Callable[[str, str, str, Path], Figures]] = {
    "phaseload": phaseload,
    "aiperf": aiperf,
    "guidellm": guidellm,
}


def _run(command: list[str]) -> str:
    core = min(os.sched_getaffinity(0))
    pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=pin, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with code {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def true(log: Path) -> Figures:
    records: list[Any] = [json.loads(line) for line in log.read_text().splitlines()]
    ttft = [(record["first"] - record["received"]) / 1e6 for record in records]
    tpot = [(record["last"] - record["first"]) / 1e6 / (record["tokens"] - 1) for record in records]
    return *np.quantile(ttft, [0.5, 0.99]), *np.quantile(tpot, [0.5, 0.99])


def compare(name: str, program: str, tokenizer: str) -> None:
    core = max(os.sched_getaffinity(0))
    pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "truth.jsonl"
        command = [sys.executable, "-m", "targets.reference_server", "--log", str(log), "--emit", json.dumps(EMIT)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            told = PEERS[name](program, url, tokenizer, Path(temporary))
        except (RuntimeError, OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"{name:<12}couldn't be measured: {type(error).__name__}: {str(error)[:200]}", flush=True)
            return
        finally:
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        exact = true(log)
        cells = "".join(f"{a:>10.3f} ({b:8.3f})" for a, b in zip(told, exact, strict=True))
        print(f"{name:<12}{cells}{cpu / REQUESTS / TOKENS * 1e6:>12.0f} us", flush=True)


def main() -> int:
    print(f"{'':<12}" + "".join(f"{head:>21}" for head in ("TTFT p50 (true) ms", "TTFT p99", "TPOT p50", "TPOT p99"))
          + f"{'CPU/chunk':>15}")  # fmt: skip
    tokenizer = os.environ.get("TOKENIZER", "")
    for name in PEERS:
        program = sys.executable if name == "phaseload" else os.environ.get(name.upper()) or shutil.which(name)
        if program is None or (name != "phaseload" and not tokenizer):
            print(f"{name:<12}not installed, or no $TOKENIZER")
        else:
            compare(name, program, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
