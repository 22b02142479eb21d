"""Does the load that can be measured grow with the processes? One client and N clients, each with a server of its own.

Where each of the 2 N has a core of its own: the chunks/s that stay safe (loadgen/certificate.py) must grow by 0.9 N. On
fewer cores a second process can't be given one, but what it costs can be told: N clients then share one core, at a load
that it holds, and a chunk must cost no more than 1 / 0.9 of what it costs one client alone at the same load each.
"""

from __future__ import annotations

import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

from loadgen import certificate
from loadgen.selftest import ClientLoad, Figures, measure

LOAD = ClientLoad(1000, 40, 120, ramp_s=1)
LIGHT = ClientLoad(250, 40, 200, ramp_s=1)
WANTED = 0.9
TRIES = 3  # of each, in turns: a shared machine's speed drifts


def together(load: ClientLoad, pairs: list[tuple[int, int]]) -> list[Figures]:
    """The figures of clients that run side by side, on these (client's, server's) cores."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        return list(pool.map(lambda cores: measure(load, cores=cores, ahead=True), pairs))


def report(count: int, found: list[Figures], scale: float) -> bool:
    """Prints a line; is it good enough?"""
    rate, safe = sum(one.rate for one in found), all(certificate.verdict(one, 0.0) == certificate.SAFE for one in found)
    worst = max(one.ttft[1] for one in found) * 1e3
    cpu = statistics.mean(one.cpu for one in found) * 1e6
    print(
        f"{count:9} {rate:10,.0f} {cpu:9.1f} us {scale:11.2f} {worst:13.3f} ms   {'yes' if safe else 'no'}", flush=True
    )
    return safe and scale >= WANTED * count


def main() -> int:
    cores = sorted(os.sched_getaffinity(0))
    most = len(cores) // 2
    print("processes   chunks/s    CPU/chunk   times one   TTFT error p99   safe")
    if most >= 2:
        alone = together(LOAD, [(cores[0], cores[1])])[0].rate
        good = True
        for count in sorted({1, 2, most}):
            found = together(LOAD, [(cores[2 * n], cores[2 * n + 1]) for n in range(count)])
            good &= report(count, found, sum(one.rate for one in found) / alone)
        return int(not good)
    print("by the CPU of a chunk: for one by chunks/s four cores are needed")
    pair = (cores[0], cores[-1])
    tries = [(together(LIGHT, [pair]), together(LIGHT, [pair, pair])) for _ in range(TRIES)]
    scales = [2 * one[0].cpu / statistics.mean(each.cpu for each in two) for one, two in tries]
    middle = scales.index(statistics.median_low(scales))
    one, two = tries[middle]
    return int(not (report(1, one, 1.0) and report(2, two, scales[middle])))


if __name__ == "__main__":
    sys.exit(main())
