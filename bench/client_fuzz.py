"""The client against a hostile server: every exchange must end in an outcome, in time, in bounded memory, none of them
by a fault of ours. `python -m bench.client_fuzz --seconds 600` is the long form; `make bench` runs 20 seconds of it.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from collections import Counter
from functools import partial

import gevent

from targets.client.http_client import HttpClient, diagnostics
from targets.clock import Clock, monotonic_ns
from targets.exchange import Call, Exchange, Outcome
from targets.target import Limits, Target
from targets.wire import WIRES
from tests.targets import hostile
from tests.targets.scripted import Scripted
from traces.request import Request

AT_ONCE = 40
GROWTH = 64  # MB


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_fuzz")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    asked = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    server = Scripted(partial(hostile.script, seed=asked.seed))
    limits = Limits(first_token_timeout=0.4, silence_timeout=0.3, request_timeout=0.8)
    clock = Clock()
    targets = [HttpClient(Target(name, server.url, "m", endpoint_type=name, limits=limits), clock) for name in WIRES]
    outcomes: Counter[Outcome] = Counter()
    faults: list[str] = []
    slowest = flying = started = 0
    settled = 0

    def done(exchange: Exchange) -> None:
        nonlocal slowest, flying
        flying -= 1
        outcomes[exchange.outcome] += 1
        slowest = max(slowest, (exchange.done or 0) - (exchange.started or 0))
        if exchange.outcome is Outcome.INTERNAL_ERROR:
            faults.append(exchange.error)

    end = monotonic_ns() + round(asked.seconds * 1e9)
    while monotonic_ns() < end:
        while flying < AT_ONCE:
            flying += 1
            started += 1
            client = targets[started % len(targets)]
            row = Request(started, 0, 1, 2)
            client.start(Call(request=row, target=client.target.name, due=0, prompt="hello"), done)
        gevent.sleep(0.002)
        if started > 2000 and not settled:
            settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with gevent.Timeout(10, False):
        while flying:
            gevent.sleep(0.01)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled) / 1024 if settled else 0.0
    for target in targets:
        target.close()
    server.close()
    print(f"seed {asked.seed}: {started} exchanges over {len(targets)} wire formats in {asked.seconds:.0f} s")
    print("  " + ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common()))
    print(
        f"  never ended: {flying}; faults of ours: {len(faults)} {faults[:3]}; the slowest took {slowest * 1e-9:.2f} s"
    )
    print(f"  memory grew by {grown:.1f} MB after the first 2,000; longest stall {diagnostics().longest_stall_s:.3f} s")
    return int(bool(flying or faults or grown > GROWTH))


if __name__ == "__main__":
    sys.exit(main())
