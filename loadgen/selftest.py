"""The client against the reference server: one load, each side in a process of its own, and how far they differ.

`measure` is what `phaseload certify` and the benchmarks are made of; `python -m loadgen.selftest LOAD` is the client's
side. LOAD is a `ClientLoad` as JSON, with the server's "url".
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from targets.linux import kept_waiting
from traces.errors import RunFailed
from traces.request import NS_PER_S

CLIENT = (sys.executable, "-m", "loadgen.selftest")


@dataclass(frozen=True)
class ClientLoad:
    """`streams` at a time, of `tokens` each at `rate` tokens/s; they start over `ramp_s`, and each connection has
    `rounds` of them one after the other. `truth`: more settings of the server (targets/reference_server.py)."""

    streams: int
    rate: float
    tokens: int
    rounds: int = 1
    ramp_s: float = 0.5
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What one load showed. Errors are (p50, p99) in seconds. The names are the certificate's."""

    requests: int
    failed: int
    ttft: tuple[float, float]  # |first token's instant - its write's|
    tpot: tuple[float, float]  # |client's TPOT - true TPOT|
    shared: float  # share of first tokens that came in one read with others
    merged: float  # share of all tokens that did
    cpu: float  # client's CPU seconds a chunk, requests and all
    rate: float  # chunks of the busiest second
    core: float  # share of its core that the client takes at that rate
    waited: float  # share of the time that client or server was kept waiting for a core
    late: tuple[float, float]  # the server's own lateness, the largest of each request
    grown_mb: float
    facts: dict[str, Any]  # the client's diagnostics


def measure(
    load: ClientLoad, *, client: Sequence[str] = CLIENT, tls: tuple[str, str] | None = None,
    cores: tuple[int, int] | None = None, ahead: bool = False,
) -> Figures:  # fmt: skip
    """One client against a fresh server, pinned to these cores (the first, the last). `tls`: files of a certificate and
    its key. `ahead` keeps the machine's other work out of the cores, as far as the user may: for what the client can
    do, not for what it will do here (that is `phaseload certify`'s question)."""
    cores = cores or (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))
    gap = 1 / load.rate
    truth = {"ttft_s": 0.1, "gap_s": gap, "step_s": gap, "tokens": load.tokens, **load.truth}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:  # without a name: a kill leaves nothing
        path = f"/proc/{os.getpid()}/fd/{log.fileno()}"
        command = [sys.executable, "-m", "targets.reference_server", "--log", path]
        server = pinned([*command, "--tls", *tls] if tls else command, cores[1], ahead=ahead)
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            worker = pinned([*client, json.dumps({**asdict(load), "url": url, "truth": truth})], cores[0], ahead=ahead)
            out, _ = worker.communicate(timeout=600)
        finally:
            waited = kept_waiting(server.pid) / (time.monotonic() - began)
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
        records = {record["id"]: record for record in map(json.loads, log)}
    if worker.returncode:
        raise RunFailed(f"the client's process ended with code {worker.returncode}")
    figures = judge(json.loads(out), records)
    return replace(figures, waited=max(figures.waited, waited))


def pinned(command: Sequence[str], core: int, *, ahead: bool = False) -> subprocess.Popen[str]:
    """A process on that core; `ahead` of all else that wants it, where the user may."""

    def settle() -> None:
        os.sched_setaffinity(0, {core})
        if ahead:
            with suppress(PermissionError):
                os.nice(-20)  # not real-time: the kernel stops what takes all of a core for 50 ms in each second

    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=settle)


def judge(measured: Mapping[str, Any], truth: Mapping[str, Any]) -> Figures:
    """The figures of one load, from what the client's side printed and the server's records by request."""
    import numpy as np

    rows = {key: row for key, row in measured["rows"].items() if row["ok"]}
    first = np.array([abs(row["first"] - truth[key]["first"]) for key, row in rows.items()])
    spans = [row["last"] - row["first"] - (truth[key]["last"] - truth[key]["first"]) for key, row in rows.items()]
    gaps = np.array([truth[key]["tokens"] - 1 for key in rows])
    chunks = max(1, sum(row["events"] for row in rows.values()))
    rate = busiest(truth.values())

    def quantiles(values_ns: Any) -> tuple[float, float]:
        p50, p99 = np.quantile(values_ns, [0.5, 0.99]) / NS_PER_S
        return float(p50), float(p99)

    return Figures(
        requests=len(rows), failed=len(measured["rows"]) - len(rows), ttft=quantiles(first) if rows else (1.0, 1.0),
        tpot=quantiles(np.abs(spans) / gaps) if rows else (1.0, 1.0),
        shared=sum(row["shared"] for row in rows.values()) / max(1, len(rows)),
        merged=1 - sum(row["reads"] for row in rows.values()) / chunks, cpu=measured["cpu_s"] / chunks, rate=rate,
        core=measured["cpu_s"] / chunks * rate, waited=measured.get("waited_s", 0.0) / measured.get("wall_s", 1.0),
        late=quantiles([record["late_ns"] for record in truth.values()]), grown_mb=measured["grown_kb"] / 1024,
        facts=measured.get("facts", {}),
    )  # fmt: skip


def busiest(records: Iterable[Mapping[str, Any]]) -> float:
    """Chunks a second that the server wrote in its busiest second, each stream's taken as evenly spaced."""
    import numpy as np

    spans = np.array([(record["first"], record["last"], record["tokens"]) for record in records if record["last"]])
    if not len(spans):
        return 0.0
    ticks = np.arange(spans[:, 0].min(), spans[:, 1].max() + NS_PER_S, NS_PER_S / 20)
    written = np.zeros(len(ticks))
    for first, last, tokens in spans:
        written += np.interp(ticks, [first, max(last, first + 1)], [0, tokens])
    return float((written[20:] - written[:-20]).max())


def main() -> None:
    """The client's side: prints {"rows": {id: ...}, "cpu_s", "wall_s", "waited_s", "grown_kb", "facts"} as JSON."""
    from gevent import monkey

    monkey.patch_all()

    import gc
    import resource

    import gevent

    from targets.client.http_client import HttpClient, diagnostics
    from targets.clock import Clock, cpu_ns
    from targets.exchange import Call, Exchange
    from targets.target import Target
    from traces.request import Request
    from traces.typed_json import to_plain

    load = json.loads(sys.argv[1])
    clock = Clock()
    extra = {"truth": load["truth"]}
    client = HttpClient(Target("truth", load["url"], "m", extra_body=extra, insecure=True), clock)
    rows: dict[str, Any] = {}
    total = load["streams"] * load["rounds"]
    gc.collect()
    gc.freeze()
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, cpu_ns()
    numbers = itertools.count()

    def send(stream: int, turn: int) -> None:
        key = f"{stream}-{turn}"

        def done(exchange: Exchange) -> None:
            first, last = exchange.first_token, exchange.last_token
            rows[key] = {
                "ok": exchange.ok and last is not None, "sent": clock.origin + (exchange.sent or 0),
                "first": clock.origin + (first or 0), "last": clock.origin + (last or 0),
                "events": sum(exchange.token_events), "reads": len(exchange.token_at),
                "shared": sum(exchange.token_events[:1]) > 1,  # the first token's instant is only an upper bound
            }  # fmt: skip
            if turn + 1 < load["rounds"]:
                send(stream, turn + 1)

        now = clock.now()
        request = Request(next(numbers), now, 1, load["tokens"])
        client.start(Call(request=request, target="truth", due=now, prompt=key), done)

    began, waited = clock.now(), kept_waiting()
    for stream in range(load["streams"]):
        ahead = load["ramp_s"] * stream / load["streams"] - (clock.now() - began) / NS_PER_S
        if ahead > 0.001 or stream % 16 == 0:
            gevent.sleep(max(0.0, ahead))
        send(stream, 0)
    while len(rows) < total:
        gevent.sleep(0.05)
    cpu = cpu_ns() - cpu
    wall, waited = (clock.now() - began) / NS_PER_S, kept_waiting() - waited
    facts = to_plain(diagnostics())
    client.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times = {"cpu_s": cpu / NS_PER_S, "wall_s": wall, "waited_s": waited}
    json.dump({**times, "rows": rows, "grown_kb": grown, "facts": facts}, sys.stdout)


if __name__ == "__main__":
    main()
