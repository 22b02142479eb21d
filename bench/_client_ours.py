"""One client core's worth of load by our client. Prints a JSON object; `client_accuracy` reads it."""

from __future__ import annotations

import json
import resource
import sys
import time

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402

import gevent  # noqa: E402

from targets.client import HttpTarget, diagnostics  # noqa: E402
from targets.clock import Clock  # noqa: E402
from targets.exchange import Exchange  # noqa: E402
from targets.target import Ask, Spec  # noqa: E402


def main() -> None:
    load = json.loads(sys.argv[1])
    clock = Clock()
    spec = Spec(
        "truth", load["url"], "m", extra_body={"truth": load["truth"]}, insecure=True, no_itl=load.get("no_itl", False)
    )
    target = HttpTarget(spec, clock)
    over: list[Exchange] = []
    total = load["streams"] * load["rounds"]
    gc.collect()
    gc.freeze()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = time.process_time()

    def ask(stream: int, turn: int) -> None:
        def done(exchange: Exchange) -> None:
            over.append(exchange)
            if turn + 1 < load["rounds"]:
                ask(stream, turn + 1)

        target.start(Ask(stream, clock.now(), f"{stream}-{turn}", 1, load["tokens"]), done)

    began = time.monotonic()
    for stream in range(load["streams"]):
        ahead = began + load["ramp_s"] * stream / load["streams"] - time.monotonic()
        gevent.sleep(max(0.0, ahead)) if ahead > 0.001 or stream % 16 == 0 else None
        ask(stream, 0)
    while len(over) < total:
        gevent.sleep(0.05)
    cpu = time.process_time() - cpu
    facts = diagnostics()
    target.close()
    rows = {}
    turns: dict[int, int] = {}
    for exchange in over:
        turn = turns[exchange.index] = turns.get(exchange.index, -1) + 1
        first, last = exchange.first_token, exchange.last_token
        ok = exchange.ok and first is not None and last is not None
        rows[f"{exchange.index}-{turn}"] = [
            exchange.outcome.value if not ok else "ok",
            clock.origin + (first or 0),
            clock.origin + (last or 0),
            sum(exchange.token_events),
            exchange.first_shared,
            len(exchange.token_at),
        ]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    json.dump({"cpu_s": cpu, "rows": rows, "grown_kb": grown, "facts": facts}, sys.stdout)


main()
