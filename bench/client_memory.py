"""The client's memory over many requests: flat. `--requests 1000000` is the long form; `make bench` runs 60,000.

64 connections, answers of two tokens, one request after the other on each; every hundredth user leaves in mid-stream.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gevent

from targets.client.http_client import HttpClient
from targets.clock import Clock, cpu_ns, monotonic_ns
from targets.exchange import Call, Exchange
from targets.target import Target
from traces.request import Request

AT_ONCE = 64
SETTLED = 0.25  # of all requests: what grew until then is pools and caches
LIMIT = 5.0  # MB


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_memory")
    parser.add_argument("--requests", type=int, default=60_000)
    asked = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    server = subprocess.Popen(
        [sys.executable, "-m", "targets.reference_server", "--no-log"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    clock, outcomes = Clock(), Counter[str]()
    extra = {"truth": {"ttft_s": 0, "gap_s": 0, "tokens": 2}}
    client = HttpClient(Target("t", json.loads(server.stdout.readline())["url"], "m", extra_body=extra), clock)
    settled, number, over = 0.0, 0, 0

    def done(exchange: Exchange) -> None:
        nonlocal over, settled
        over += 1
        outcomes[exchange.outcome] += 1
        if over == round(asked.requests * SETTLED):
            settled = resident_mb()
        ask()

    def ask() -> None:
        nonlocal number
        if number < asked.requests:
            number += 1
            leave = 1 if number % 100 == 0 else None
            row = Request(number, 0, 1, 2)
            client.start(Call(request=row, target="t", due=clock.now(), prompt="hello", leave_after=leave), done)

    before, began, cpu = resident_mb(), monotonic_ns(), cpu_ns()
    for _ in range(AT_ONCE):
        ask()
    while over < asked.requests:
        gevent.sleep(0.05)
    took, cpu, after = (monotonic_ns() - began) * 1e-9, cpu_ns() - cpu, resident_mb()
    client.close()
    server.terminate()
    server.wait()
    rate, each = asked.requests / took, cpu / over / 1e3
    print(f"{asked.requests:,} requests in {took:.0f} s ({rate:,.0f}/s, {each:.0f} us of CPU each)")
    print("  " + ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common()))
    print(f"  memory {before:.1f} MB, {settled:.1f} MB after {SETTLED:.0%}, {after:.1f} MB at the end")
    return int(after - settled > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
