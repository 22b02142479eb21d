"""Virtual time: an hour of Azure conversations in <= 0.5 s, a million requests in <= 30 s with flat memory, a sweep of
8 x 8 points over ten minutes in <= 20 s. CPU seconds, so that a machine's other work doesn't change them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from targets.simulated.build import build
from targets.simulated.virtual import simulate
from traces.reading import open_trace
from traces.request import Request
from traces.workload import synthesise

PUBLIC = Path(os.environ.get("PHASELOAD_TRACES", "")) / "AzureLLMInferenceTrace_conv.csv"
HOUR_S, MILLION_S, SWEEP_S, GROWTH_MB = 0.5, 30.0, 20.0, 50.0


def hour() -> list[Request]:
    return list(open_trace(str(PUBLIC)) if PUBLIC.exists() else synthesise("azure-conv", duration=3502.0, seed=1))


def again_and_again(requests: list[Request], times: int) -> Iterator[Request]:
    """The trace, over and over, made while it is read."""
    span = requests[-1].due + 1_000_000_000
    for turn in range(times):
        for request in requests:
            due = request.due + turn * span
            yield Request(request.index, due, request.prompt_tokens, request.output_tokens)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> bool:
    """True where a limit was missed."""
    requests = hour()
    tokens = sum(request.output_tokens for request in requests)
    missed = False
    for name, settings in (("a100", {}), ("h100", {}), ("h100", {"pool": "4"}), ("groqrack", {"pool": "14"})):
        seconds = []
        for _ in range(3):
            endpoint = build(name, settings=settings, model="llama2-7b")
            start = time.process_time()
            count = sum(1 for _ in simulate(endpoint, requests))
            seconds.append(time.process_time() - start)
        missed |= name in ("a100", "h100") and not settings and min(seconds) > HOUR_S
        label = f"{name} {settings or ''}"
        print(f"{count:,} requests, {tokens / 1e6:.1f} M tokens, {label:22} {min(seconds):.2f} s (limit {HOUR_S})")
    times = -(-1_000_000 // len(requests))
    list(simulate(build("h100"), again_and_again(requests, 1)))
    before, start = peak_mb(), time.process_time()
    count = sum(1 for _ in simulate(build("h100"), again_and_again(requests, times)))
    took, grown = time.process_time() - start, peak_mb() - before
    missed |= took > MILLION_S or grown > GROWTH_MB
    print(f"{count:,} requests on h100: {took:.1f} s (limit {MILLION_S:.0f}), memory grew by {grown:.1f} MB")
    return missed | sweep()


def sweep() -> bool:
    trace = str(PUBLIC) if PUBLIC.exists() else "azure-conv"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "loadgen", "simulate", trace, "--target", "h100", "--duration", "600"]
        command += ["--sweep", "speedup=0.5..8", "--sweep", "pool=1,2,3,4,5,6,7,8", "--out", folder + "/run"]
        before, start = cpu_of_children(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took, cpu = time.perf_counter() - start, cpu_of_children() - before
    cores = min(2, len(os.sched_getaffinity(0)))
    print(
        f"a sweep of 8 x 8 points over 10 minutes of trace: {cpu:.1f} s CPU, {cpu / cores:.1f} s on {cores} idle cores"
    )
    print(f"  (limit {SWEEP_S:.0f}); {took:.1f} s by the clock here and now")
    return cpu / cores > SWEEP_S


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
