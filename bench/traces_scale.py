"""Scale: a week in the Azure 2024 form (16.8 million rows) read whole, then only its first minute; prompts written.

Limits: 2 million rows/s and more; under 500 MB for the first minute; 1,000 prompts of 2,000 tokens in under 0.2 s of
CPU time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from traces import words
from traces.prompts import Prompts
from traces.reading import open_trace
from traces.request import Request
from traces.words import Corpus
from traces.workload import synthesise

ROWS = 16_800_000
WEEK = 7 * 86400.0
START = 1_715_299_200 * 10**9  # 2024-05-10


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "week.csv")
        rows = week(path)
        begun = time.perf_counter()
        read = len(open_trace(path))
        took = time.perf_counter() - begun
        speed = f"read {read:,} rows in {took:.1f} s: {read / took / 1e6:.2f} M rows/s"
        failed += judged(speed, read == rows and read / took >= 2e6)
        child = subprocess.run(
            [sys.executable, "-m", "bench.traces_scale", path], capture_output=True, text=True, check=True
        )
        first, peak, took = child.stdout.split()
        failed += judged(
            f"first minute: {int(first):,} rows, {float(took):.2f} s, peak {float(peak):.0f} MB", float(peak) < 500
        )
    requests = [Request(index, 0, 2000, 1) for index in range(1000)]
    texts = [words.words(b"%d" % number, 20 + number % 300) for number in range(2000)]
    for name, spent in (
        ("text", prompts(requests)),
        ("shared blocks of 64", prompts(requests, "weka-agentic")),
        ("a corpus's words", prompts(requests, corpus=Corpus(texts))),
    ):
        failed += judged(f"prompts, {name}: {spent * 1e3:.0f} ms of CPU time for 1,000 of 2,000 tokens", spent < 0.2)
    return failed


def week(path: str) -> int:
    """Writes the rows as the publisher does: 2024-05-10 00:00:00.009930+00:00,2162,5."""
    trace = synthesise("azure-conv", rate=ROWS / WEEK, duration=WEEK)
    with pa.OSFile(path, "wb") as out:
        out.write(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for start in range(0, len(trace), 1 << 20):
            part = trace[start : start + (1 << 20)]
            micros = pa.array((START + part.column("due")) // 1000).cast(pa.timestamp("us"))
            stamps = pc.binary_join_element_wise(pc.strftime(micros, "%Y-%m-%d %H:%M:%S"), "+00:00", "")
            table = pa.table(
                [stamps, *(pa.array(part.column(f"{name}_tokens")) for name in ("prompt", "output"))], ["t", "p", "o"]
            )
            pyarrow.csv.write_csv(table, out, pyarrow.csv.WriteOptions(include_header=False, quoting_style="none"))
    print(f"wrote {len(trace):,} rows, {Path(path).stat().st_size / 1e6:.0f} MB")
    return len(trace)


def prompts(requests: list[Request], workload: str = "", corpus: Corpus | None = None) -> float:
    """CPU seconds for a thousand prompts, or for as many words in growing sessions."""
    trace = synthesise(workload or "azure-conv", duration=200, rate=2)
    writer = Prompts(trace, seed=1, salt="bench", corpus=corpus)
    if workload:
        requests, words = [], 0
        for request in trace:
            if words > 2_000_000:
                break
            words += request.prompt_tokens
            requests.append(request)
    begun = time.process_time()
    for request in requests:
        writer.text(request)
    written = sum(request.prompt_tokens for request in requests)
    return (time.process_time() - begun) * 2_000_000 / max(written, 1)


def judged(text: str, good: bool) -> int:
    print(f"{text}{'' if good else '  <-- beyond its limit'}", flush=True)
    return not good


if __name__ == "__main__":
    begun = time.perf_counter()
    minute = open_trace(sys.argv[1], until=60)
    assert len(list(minute)) == len(minute) and np.all(minute.column("due") <= 60 * 10**9)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent's, from before exec
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(len(minute), peak, time.perf_counter() - begun)
