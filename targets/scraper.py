"""Reads what the servers say of themselves while the load runs: `/metrics`, every second, into metrics.jsonl.

The reading is off the client's critical path, in a process of its own: `python -m targets.scraper`, started
and ended by `Scraper`. It reads each URL once before the load, every second during it and once after, with a thread for
each URL, and writes a line for each reading (telemetry.py). For each target that is not on this machine it measures the
network's round trip, too. Prefill and decode workers stay apart, because each has its URL.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select
from typing import IO

from traces.errors import InputError
from traces.request import NS_PER_S

from .address import resolve
from .client.blocking import get
from .client.http import HttpError
from .clock import Clock, monotonic_ns
from .linux import round_trip
from .rules import loopback, port, split
from .secrets import hand_over, put_back, take_over
from .target import Target
from .telemetry import AFTER, BEFORE, DURING, FILE, Reading
from .wire import lenient

EVERY = 1.0  # seconds
PATIENCE = 2.0  # seconds that one reading may take
LARGEST = 8 << 20  # bytes of one answer


class Scraper:
    """The process that reads, from here on until `stop`. Does nothing where there is nothing to read."""

    def __init__(self, targets: Iterable[Target], folder: Path, origin: int) -> None:
        """`origin` is the run's start, nanoseconds since the epoch (`Clock.origin`)."""
        command = [sys.executable, "-P", "-m", "targets.scraper"]
        command += ["--out", str(folder / FILE), "--origin", str(origin)]
        looks = [json.dumps(asdict(look)) for look in looks_at(targets)]
        self._process = None
        if looks:
            environment, secrets = hand_over()
            self._process = subprocess.Popen(
                [*command, *looks], stdin=subprocess.PIPE, env=environment, pass_fds=(secrets,), start_new_session=True
            )
            os.close(secrets)

    def stop(self) -> None:
        """Has the last reading made, and waits for it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(3 * PATIENCE)  # the reading that is under way, the last one, and a little
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None


@dataclass(frozen=True)
class Look:
    """What is looked at once a second: a URL's metrics, or the network's round trip to it."""

    url: str
    round_trip: bool = False
    insecure: bool = False
    ca_file: str | None = None

    def take(self, at: int, when: str) -> Reading:
        """One reading, whose instant is `at`. What goes wrong is in it."""
        try:
            if self.round_trip:
                return Reading(at, self.url, when, round_trip=_round_trip(self.url))
            url, ca_file = put_back(self.url, "metrics"), put_back(self.ca_file or "", "ca_file") or None
            text = get(url, PATIENCE, insecure=self.insecure, ca_file=ca_file, largest=LARGEST)
            return Reading.of_text(at, self.url, when, text.decode("utf-8", "replace"))
        except (OSError, HttpError, InputError) as error:
            return Reading(at, self.url, when, error=lenient.line(str(error) or type(error).__name__, 200))


def looks_at(targets: Iterable[Target]) -> list[Look]:
    """Each metrics URL once, trusted as its target is (of several targets the strictest counts), and what is far."""
    looks: dict[str, Look] = {}
    targets = sorted(targets, key=lambda target: target.insecure)
    for target in targets:
        for url in target.metrics:
            looks.setdefault(url, Look(url, insecure=target.insecure, ca_file=target.ca_file))
    urls = {url for target in targets for url in (target.url, *target.prefill, *target.decode)}
    far = [url for url in sorted(urls) if not loopback(split(url).hostname or "localhost")]  # a Unix socket isn't
    return [*looks.values(), *(Look(url, round_trip=True) for url in far)]


def _round_trip(url: str) -> float:
    """Seconds to the target itself and back, whatever proxy its requests take."""
    parts = split(url)
    family, address = resolve(parts.hostname or "", port(parts))[0]
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        began = monotonic_ns()
        sock.connect(address)  # type: ignore[arg-type]
        return round_trip(sock) or (monotonic_ns() - began) / NS_PER_S


class _Log:
    """The file that all readings go into, and when they are over."""

    def __init__(self, out: IO[str], origin: int | None) -> None:
        self.clock, self.over = Clock(origin), threading.Event()
        self._out, self._lock = out, threading.Lock()
        self._reported: set[str] = set()  # URLs whose metrics' failure is on stderr

    def follow(self, look: Look) -> None:
        """One URL from before to after, on the run's whole seconds."""
        self._note(look, BEFORE)
        while not self.over.wait(EVERY - self.clock.now() % NS_PER_S / NS_PER_S):
            self._note(look, DURING)
        self._note(look, AFTER)

    def _note(self, look: Look, when: str) -> None:
        reading = look.take(self.clock.now(), when)
        with self._lock:
            self._out.write(json.dumps(reading.to_json()) + "\n")
            self._out.flush()
            if reading.error and not look.round_trip and look.url not in self._reported:
                self._reported.add(look.url)
                sys.stderr.write(f"{look.url}: its metrics can't be read: {reading.error}\n")


def main() -> None:
    """Reads until standard input ends: when the run does, or when the process that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m targets.scraper")
    parser.add_argument("looks", nargs="+", help="each a Look as JSON")
    parser.add_argument("--out", required=True)
    parser.add_argument("--origin", type=int)
    options = parser.parse_args()
    take_over()
    looks = [Look(**json.loads(text)) for text in options.looks]
    with Path(options.out).open("a", encoding="utf-8") as out:
        log = _Log(out, options.origin)
        threads = [threading.Thread(target=log.follow, args=(look,), daemon=True) for look in looks]
        for thread in threads:
            thread.start()
        while not select([sys.stdin], [], [])[0] or os.read(sys.stdin.fileno(), 4096):
            pass
        log.over.set()
        for thread in threads:
            thread.join(2 * PATIENCE)


if __name__ == "__main__":
    main()
