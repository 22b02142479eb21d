"""The live lines of a run: requests sent, in flight, done and failed, and the medians so far. Quiet off a terminal.

Written by hand, not by a table library: in a local run this greenlet shares its loop with the dispatcher, and a table
costs milliseconds a frame, these lines tens of microseconds.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gevent

if TYPE_CHECKING:
    from .coordinator import Coordinator

PERIOD = 0.5  # seconds
CLEAR, UP = "\x1b[J", "\x1b[{}A"


class Progress:
    """Shows a conductor's progress on stderr until it is stopped."""

    def __init__(self, conductor: Coordinator) -> None:
        self._conductor = conductor
        self._shown = 0  # lines on the terminal
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        if sys.stderr.isatty():
            self._greenlet = gevent.spawn(self._show)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()
            self._write([])

    def _show(self) -> None:
        while not self._conductor.over.is_set():
            self._write(lines(self._conductor))
            gevent.sleep(PERIOD)
        self._write(["the run is over; writing the report"])

    def _write(self, shown: list[str]) -> None:
        back = UP.format(self._shown) if self._shown else ""
        sys.stderr.write(f"{back}\r{CLEAR}" + "".join(line + "\n" for line in shown))
        sys.stderr.flush()
        self._shown = len(shown)


def lines(conductor: Coordinator) -> list[str]:
    """A headline, and a line for each target of the phase."""
    if conductor.phase < 0:
        return [f"{conductor.plan.name}: preparing prompts for {len(conductor.workers)} worker(s)"]
    phase = conductor.plan.phases[conductor.phase]
    planned = {leg.target.name: leg.requests for leg in phase.legs}
    width = max(len("target"), *map(len, planned))
    seen = conductor.progress()
    head = f"{'target':{width}}         sent  in flight    done  failed    TTFT p50    TPOT p50"
    title = f"{conductor.plan.name}: {phase.name}, {phase.load}"
    lost = [f"worker {w.number} is lost: {w.lost}; the run is invalid" for w in conductor.workers.values() if w.lost]
    return [title, head, *(_line(name, width, of, seen[name]) for name, of in planned.items() if name in seen), *lost]


def _line(name: str, width: int, planned: int, seen: dict[str, Any]) -> str:
    sent = f"{seen['sent']}/{planned}"
    counts = f"{sent:>13} {seen['in_flight']:10} {seen['done']:7} {seen['failed']:7}"
    return f"{name:{width}}{counts} {_milliseconds(seen['ttft'])} {_milliseconds(seen['tpot'])}"


def _milliseconds(digest: Any) -> str:
    return f"{'-':>11}" if digest.is_empty() else f"{digest.quantile(0.5) * 1e3:8.1f} ms"
