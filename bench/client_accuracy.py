"""How far the client's instants are from the truth, and what a chunk costs, beside an ordinary client in the same run.

The client is pinned to one core, the known-truth server to another. Errors are |client's instant - write's instant| of
the first token, and |client's TPOT - true TPOT|; CPU is the client process's, requests and all, per streamed chunk.
Both go ahead of the machine's other work, as far as the user may. Streams emit in steps, all of them together, as
continuous batching makes them: the client meets bursts, not a drizzle.

    python -m bench.client_accuracy [--load NAME]... [--ours-only]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trustme

from loadgen.selftest import ClientLoad, Figures, measure

PEER = (sys.executable, "-m", "bench._client_aiohttp")

# name: the load; limits of |TTFT error| p50 and p99 (ms), |TPOT error| p99 (us), CPU per chunk (us); what is run beside
LOADS: dict[str, tuple[ClientLoad, tuple[float, float, float, float], str]] = {
    "64 x 100/s": (ClientLoad(64, 100, 100, 6, 1), (0.1, 1, 1, 26), "aiohttp"),
    "1,000 x 40/s": (
        ClientLoad(1000, 40, 100, 3, 2.5),
        (0.1, 1.5, 1, 13),
        "aiohttp",
    ),
    "1,000 x 60/s": (ClientLoad(1000, 60, 300, 1, 2.5), (0.1, 1.5, 1, 13), ""),
    "10,000 x 2/s": (ClientLoad(10000, 2, 100, 1, 10), (0.1, 2, 1, 14), ""),
    "64, TLS": (ClientLoad(64, 100, 100, 6, 1), (0.2, 2, 2, 52), "aiohttp"),
    "1,000, TLS": (ClientLoad(1000, 20, 100, 2, 8), (0.2, 3, 2, 26), ""),
}

HEADER = (
    f"{'load':<14}{'client':<16}{'chunks/s':>9}{'TTFT error p50':>16}{'p99':>12}{'TPOT error p99':>18}"
    f"{'CPU/chunk':>11}{'shared':>8}{'merged':>8}{'memory':>9}{'server late p99':>17}"
)


def line(name: str, client: str, figures: Figures) -> str:
    ttft, tpot = [x * 1e3 for x in figures.ttft], figures.tpot[1] * 1e6
    failed = f"  {figures.failed} FAILED" if figures.failed else ""
    return (
        f"{name:<14}{client:<16}{figures.rate:>9,.0f}{ttft[0]:>13.3f} ms{ttft[1]:>9.3f} ms{tpot:>15,.2f} us"
        f"{figures.cpu * 1e6:>8.1f} us{figures.shared:>8.1%}{figures.merged:>8.1%}"
        f"{figures.grown_mb:>6.0f} MB{figures.late[1] * 1e3:>14.2f} ms{failed}"
    )


def within(figures: Figures, limits: tuple[float, float, float, float]) -> bool:
    found = (*(x * 1e3 for x in figures.ttft), figures.tpot[1] * 1e6, figures.cpu * 1e6)
    return not figures.failed and all(value <= limit for value, limit in zip(found, limits, strict=True))


def certificate(folder: str) -> tuple[str, str]:
    authority, names = trustme.CA(), (str(Path(folder) / "cert.pem"), str(Path(folder) / "key.pem"))
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(names[0])
    made.private_key_pem.write_to_path(names[1])
    return names


def run(name: str, tls: tuple[str, str], *, peers: bool) -> bool:
    """Is our client within the load's limits?"""
    load, limits, peer = LOADS[name]
    secure = tls if "TLS" in name else None
    ours = measure(load, tls=secure, ahead=True)
    print(line(name, "phaseload", ours), flush=True)
    good = within(ours, limits)
    if not good:
        p50, p99, tpot, cpu = limits
        print(f"    beyond its limits: TTFT p50 {p50}, p99 {p99} ms, TPOT p99 {tpot} us, CPU {cpu} us")
    if peer and peers:
        theirs = measure(load, client=PEER, tls=secure, ahead=True)
        print(line(name, "aiohttp + json", theirs), flush=True)
        error, cpu = theirs.ttft[0] / ours.ttft[0], ours.cpu / theirs.cpu
        print(f"    ours: TTFT error p50 {error:,.0f} times smaller, CPU {cpu:.2f} of theirs", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_accuracy")
    parser.add_argument("--load", choices=LOADS, action="append")
    parser.add_argument("--ours-only", action="store_true")
    asked = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        tls = certificate(folder)
        return sum(not run(name, tls, peers=not asked.ours_only) for name in asked.load or LOADS)


if __name__ == "__main__":
    sys.exit(main())
