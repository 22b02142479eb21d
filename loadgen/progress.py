"""The live line of a run: requests sent, in flight, done and failed, and the medians so far. Quiet off a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from .conductor import Conductor


class Progress:
    """Shows a conductor's progress on stderr until it is stopped."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self._greenlet = gevent.spawn(self._show)

    def stop(self) -> None:
        if self._greenlet is not None and self._live is not None:
            self._greenlet.kill()
            self._live.stop()

    def _show(self) -> None:
        assert self._live is not None
        while not self._conductor.over.is_set():
            self._live.update(self._table(), refresh=True)
            gevent.sleep(0.5)
        self._live.update("the run is over; writing the report", refresh=True)

    def _table(self) -> Table:
        conductor = self._conductor
        title = conductor.plan.name
        if conductor.phase >= 0:
            title += f": {conductor.plan.phases[conductor.phase].name}"
        table = Table("target", "sent", "in flight", "done", "failed", "TTFT p50", "TPOT p50", title=title)
        for target, seen in conductor.progress().items():
            counts = [str(seen[name]) for name in ("sent", "in_flight", "done", "failed")]
            medians = [_milliseconds(seen[name]) for name in ("ttft", "tpot")]
            table.add_row(target, *counts, *medians)
        return table


def _milliseconds(digest: object) -> str:
    if digest.is_empty():  # type: ignore[attr-defined]
        return "-"
    return f"{digest.quantile(0.5) * 1e3:.1f} ms"  # type: ignore[attr-defined]
