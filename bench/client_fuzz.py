"""The client against a hostile server: every exchange must end in an outcome, in time, in bounded memory, none of them
by a fault of ours. `python -m bench.client_fuzz --seconds 600` is the long form; `make bench` runs 20 seconds of it.

`--kept`: the client on kept connections, against a server that logs each request of which it read anything and closes
them in every way at every byte (tests/targets/ledger.py). Requests recorded must be requests read, but for those that
the server closed on unread, and no request may be read twice. `--delay-ms`: over a link of that delay.
"""

from __future__ import annotations

import argparse
import random
import resource
import ssl
import sys
import tomllib
from collections import Counter
from functools import partial
from pathlib import Path

import gevent
import trustme

from targets.client.connection import Connection
from targets.client.http_client import HttpClient, diagnostics
from targets.client.transport import Transport
from targets.clock import Clock, monotonic_ns
from targets.exchange import Call, Exchange, Outcome
from targets.recording import recording
from targets.target import Limits, Target
from targets.wire import WIRES
from tests.targets import hostile
from tests.targets.ledger import Ledger
from tests.targets.scripted import Scripted
from tests.targets.wire_cases import chunked
from traces.request import Request

from . import _delayed

EXCHANGES = Path(__file__).parents[1] / "tests" / "wire" / "exchanges"
AT_ONCE = 40
GROWTH = 64  # MB
BURST = 100  # requests of one client, so that its connections are used again at once


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_fuzz")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    asked = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    if asked.kept:
        return kept(asked.seconds, asked.seed, asked.delay_ms)
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


def kept(seconds: float, seed: int, delay_ms: float) -> int:
    if delay_ms:
        _delayed.enter(delay_ms)
    here, there = (_delayed.HERE, _delayed.THERE) if delay_ms else ("127.0.0.1", "127.0.0.1")
    ledger, dice = Ledger({kind: _answer(kind) for kind in WIRES}, seed), random.Random(seed)
    # A close that comes just after the connection was found to be open is rare: here it isn't.
    Connection.alive = lambda self: dice.random() < 0.5 or Transport.alive(self)  # type: ignore[method-assign]
    plain, secure = (Scripted(ledger.script, where=(here, 0)) for _ in range(2))
    authority, clock = trustme.CA(), Clock()
    secure.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(there).configure_cert(secure.context)
    limits = Limits(first_token_timeout=5, silence_timeout=5, request_timeout=5)
    over: list[tuple[str, Exchange]] = []
    with authority.cert_pem.tempfile() as ca_file:
        clients = [
            HttpClient(
                Target(kind, server.url.replace(here, there), "m", endpoint_type=kind, ca_file=ca_file, limits=limits),
                clock,
            )
            for server in (plain, plain, plain, secure)
            for kind in WIRES
        ]
    started, end = 0, monotonic_ns() + round(seconds * 1e9)
    while monotonic_ns() < end or len(over) < started:
        while len(over) > started - AT_ONCE and monotonic_ns() < end:
            client = clients[started // BURST % len(clients)]
            path = f"/{client.target.name}/{started}"
            call = Call(request=Request(started, 0, 1, 2), target=client.target.name, due=0, prompt="hello " * 20)
            _, headers, body = client.wire.request(call, client.target)
            note = partial(_note, over, path)
            client.post(Exchange(call), path, headers, body, client.wire.reader(), note)
            started += 1
        gevent.sleep(dice.choice((0, 0, 0.001, 0.004)))
    for client in clients:
        client.close()
    for server in (plain, secure):
        server.close()
    return _judge(ledger, over, started, f"seed {seed}, delay {delay_ms:g} ms, {seconds:.0f} s")


def _note(over: list[tuple[str, Exchange]], path: str, exchange: Exchange) -> None:
    over.append((path, exchange))


def _answer(kind: str) -> bytes:
    """The first whole stream among the recorded answers of a wire format."""
    tables = tomllib.loads((EXCHANGES / f"{kind}.toml").read_text(encoding="utf-8")).values()
    streams = [recording(table) for table in tables if table["facts"]["outcome"] == "ok"]
    body = next(answer.body for answer in streams if b"data:" in answer.body)
    return chunked(body.decode())


def _judge(ledger: Ledger, over: list[tuple[str, Exchange]], started: int, what: str) -> int:
    recorded = dict(over)
    outcomes = Counter(exchange.outcome for exchange in recorded.values())
    again = [path for path, exchange in recorded.items() if exchange.reconnected]
    unread = [path for path in recorded if not ledger.read[path]]
    wrong = {
        "recorded twice or never": started - len(recorded) + len(over) - len(recorded),
        "read twice": sum(count > 1 for count in ledger.read.values()),
        "read, but not recorded": len(ledger.read.keys() - recorded.keys()),
        "ok, but not read": sum(recorded[path].outcome is Outcome.OK for path in unread),
        "faults of ours": outcomes[Outcome.INTERNAL_ERROR],
    }
    print(f"kept connections, {what}: {len(over):,} requests recorded = {sum(map(bool, ledger.read.values())):,} read")
    print(f"  + {len(unread):,} that the server closed on unread; on used connections {_reused(recorded):,}")
    print("  " + ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common()))
    print(f"  sent again {len(again):,}, of which read once {sum(ledger.read[path] == 1 for path in again):,}")
    print("  " + "; ".join(f"{name}: {count}" for name, count in wrong.items()))
    return int(any(wrong.values()))


def _reused(recorded: dict[str, Exchange]) -> int:
    return sum(exchange.reused or exchange.reconnected for exchange in recorded.values())


if __name__ == "__main__":
    sys.exit(main())
