"""Does the load that can be measured grow with the processes? One client and N clients, each with a server of its own,
each of the 2 N on a core of its own: the most chunks/s that stay safe (loadgen/certificate.py) must grow by 0.9 N.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loadgen import certificate
from loadgen.selftest import measure

LOAD = {"streams": 1000, "rate": 40, "tokens": 120, "rounds": 1, "ramp_s": 1}
WANTED = 0.9


def together(count: int) -> list[dict[str, Any]]:
    """The figures of `count` clients that run side by side."""
    cores = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda n: measure(LOAD, cores=(cores[2 * n], cores[2 * n + 1])), range(count)))


def main() -> int:
    most = len(os.sched_getaffinity(0)) // 2
    if most < 2:
        print("needs 4 cores: a client's and a server's for each of two processes")
        return 0
    alone = together(1)[0]["rate"]
    missed = False
    print("processes   chunks/s   times one   TTFT error p99   safe")
    for count in sorted({1, 2, most}):
        found = together(count)
        rate, safe = sum(one["rate"] for one in found), all(certificate.safe(one) for one in found)
        worst = max(one["ttft"][1] for one in found) * 1e3
        missed |= not safe or rate < WANTED * count * alone
        print(f"{count:9} {rate:10,.0f} {rate / alone:11.2f} {worst:13.3f} ms   {'yes' if safe else 'no'}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
