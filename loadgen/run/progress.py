"""The live lines of a run: requests sent, in flight, done and failed, and the medians so far. Quiet off a terminal.

Written by hand, not by a table library: in a local run this greenlet shares its loop with the dispatcher, and a table
costs milliseconds a frame, these lines tens of microseconds.
"""

from __future__ import annotations

import sys

import gevent
from fastdigest import TDigest

from reports.store.digests import DigestState

from .coordinator import Coordinator
from .messages import LaneProgress

PERIOD = 0.5  # seconds
CLEAR, UP = "\x1b[J", "\x1b[{}A"


class Progress:
    """Shows a coordinator's progress on stderr from now on, until it is stopped."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._shown = 0  # lines on the terminal
        self._greenlet = gevent.spawn(self._show) if sys.stderr.isatty() else None

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
    workers = coordinator.workers.values()
    head = f"{'target':{width}}         sent  in flight    done  failed    TTFT p50    TPOT p50"
    title = f"{coordinator.plan.name}: {step.name}, {step.load}"
    lanes = {name: [worker.lanes[name] for worker in workers if name in worker.lanes] for name in planned}
    targets = [f"{name:{width}}{_totals(lanes[name], of)}" for name, of in planned.items() if lanes[name]]
    lost = [f"worker {each.number} is lost: {each.lost}; the run is invalid" for each in workers if each.lost]
    return [title, head, *targets, *lost]


def _totals(lanes: list[LaneProgress], planned: int) -> str:
    """The columns of one target, all workers together."""
    counts = ((lane.sent, lane.in_flight, lane.done, lane.failed) for lane in lanes)
    sent, in_flight, done, failed = map(sum, zip(*counts, strict=True))
    medians = f"{_median([lane.ttft for lane in lanes])} {_median([lane.tpot for lane in lanes])}"
    return f"{f'{sent}/{planned}':>13} {in_flight:10} {done:7} {failed:7} {medians}"


def _median(digests: list[DigestState]) -> str:
    digest = sum((TDigest.from_dict(state) for state in digests), TDigest())
    return f"{'-':>11}" if digest.is_empty() else f"{digest.quantile(0.5) * 1e3:8.1f} ms"
