"""The live lines of a run: requests sent, in flight, done and failed, and the medians so far. Quiet off a terminal.

Written by hand, not by a table library: in a local run this greenlet shares its loop with the dispatcher, and a table
costs milliseconds a frame, these lines tens of microseconds.
"""

from __future__ import annotations

import sys

import gevent
from fastdigest import TDigest

from .coordinator import Coordinator, TargetProgress

PERIOD = 0.5  # seconds
CLEAR, UP = "\x1b[J", "\x1b[{}A"


class Progress:
    """Shows a coordinator's progress on stderr until it is stopped."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
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
        while not self._coordinator.over.is_set():
            self._write(lines(self._coordinator))
            gevent.sleep(PERIOD)
        self._write(["the run is over; writing the report"])

    def _write(self, shown: list[str]) -> None:
        back = UP.format(self._shown) if self._shown else ""
        sys.stderr.write(f"{back}\r{CLEAR}" + "".join(line + "\n" for line in shown))
        sys.stderr.flush()
        self._shown = len(shown)


def lines(coordinator: Coordinator) -> list[str]:
    """A headline, and a line for each target of the step."""
    if coordinator.step < 0:
        return [f"{coordinator.plan.name}: preparing prompts for {len(coordinator.workers)} worker(s)"]
    step = coordinator.plan.steps[coordinator.step]
    planned = {arm.target.name: arm.requests for arm in step.arms}
    width = max(len("target"), *map(len, planned))
    progress = coordinator.progress()
    head = f"{'target':{width}}         sent  in flight    done  failed    TTFT p50    TPOT p50"
    title = f"{coordinator.plan.name}: {step.name}, {step.load}"
    targets = [_line(name, width, of, progress[name]) for name, of in planned.items() if name in progress]
    lost = [f"worker {w.number} is lost: {w.lost}; the run is invalid" for w in coordinator.workers.values() if w.lost]
    return [title, head, *targets, *lost]


def _line(name: str, width: int, planned: int, progress: TargetProgress) -> str:
    sent = f"{progress.sent}/{planned}"
    counts = f"{sent:>13} {progress.in_flight:10} {progress.done:7} {progress.failed:7}"
    return f"{name:{width}}{counts} {_milliseconds(progress.ttft)} {_milliseconds(progress.tpot)}"


def _milliseconds(digest: TDigest) -> str:
    return f"{'-':>11}" if digest.is_empty() else f"{digest.quantile(0.5) * 1e3:8.1f} ms"
