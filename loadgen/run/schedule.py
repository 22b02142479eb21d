"""What one worker sends next: the order of its requests, with every rule of open and closed loops. Pure.

Three kinds of load are one mechanism:

- open loop: each request is due at its instant in the trace;
- sessions: a turn whose parent is in the trace is due when the parent is done and its user has thought;
- a fixed number in flight: a slot that becomes free takes the earliest turn that waits, else the trace's next request.

Instants are nanoseconds from the step's start. Nothing is due at or after `end`: what would be is dropped, and with
it the turns that would have followed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from traces.trace import Request, Trace


@dataclass(frozen=True, slots=True)
class Due:
    """A request at its instant. `planned` is the trace's own instant where `due` follows a parent's end instead."""

    request: Request
    due: int
    planned: int | None = None


class Schedule:
    """One worker's requests of one arm in the order in which they become due. `concurrency` is this worker's share of
    the requests in flight (None: no limit), `open_loop` sends sessions by their timestamps. Call `pop` for what is due,
    and `finished` once for each request that it gave."""

    def __init__(
        self, trace: Trace, *, end: int | None = None, concurrency: int | None = None, open_loop: bool = False
    ) -> None:
        self.end = end
        self.sent = self.in_flight = 0
        self._planned = len(trace)
        self._free = concurrency
        self._children: defaultdict[int, list[Request]] = defaultdict(list)
        self._waiting: list[tuple[int, int, Request]] = []  # later turns by the instant at which they may be sent
        self._roots = self._split(trace, closed=trace.has("session") and not open_loop)
        self._root = next(self._roots, None)
        self._freed = 0  # when the last slot became free

    def _split(self, trace: Trace, *, closed: bool) -> Iterator[Request]:
        if not closed:
            return iter(trace)
        present = set(trace.column("index").tolist())
        roots: list[Request] = []
        for request in trace:
            (self._children[request.parent] if request.parent in present else roots).append(request)
        return iter(roots)

    @property
    def unsent(self) -> int:
        """Requests that were not sent: their slot, or their parent's end, had not come when the step ended."""
        return self._planned - self.sent

    def next_due(self) -> int | None:
        """The instant of the next request; None while nothing can be sent before something is finished."""
        if self._free == 0:
            return None
        candidates = [self._waiting[0][0]] if self._waiting else []
        if self._root is not None:
            candidates.append(self._root.due if self._free is None else 0)
        if not candidates:
            return None
        due = min(candidates) if self._free is None else max(min(candidates), self._freed)
        return None if self.end is not None and due >= self.end else due

    def pop(self, now: int) -> Iterator[Due]:
        """What is due by `now`, in order."""
        while (due := self.next_due()) is not None and due <= now:
            yield self._take(due)

    def finished(self, request: Request, at: int, free: int | None = None) -> None:
        """Its answer was done `at`: its followers' users start thinking. Its slot is free, and the next turn can be
        sent, from `free` on (None: at once): a server may keep the body of an answer open that is done."""
        free = at if free is None else free
        self.in_flight -= 1
        for child in self._children.pop(request.index, ()):
            heapq.heappush(self._waiting, (max(free, at + child.think), child.index, child))
        if self._free is not None:
            self._free += 1
            self._freed = free

    def exhausted(self, now: int) -> bool:
        """Nothing more will be sent, whatever is finished from now on."""
        if self.end is not None and now >= self.end:
            return True
        if self.next_due() is not None:
            return False
        return self.in_flight == 0 or (self._root is None and not self._waiting and not self._children)

    def _take(self, due: int) -> Due:
        self.sent += 1
        self.in_flight += 1
        later = bool(self._waiting) and self._waiting[0][0] <= due
        if self._free is not None:
            self._free -= 1
        if later:
            request = heapq.heappop(self._waiting)[2]
            return Due(request, due, None if self._free is not None else request.due)
        assert self._root is not None
        request, self._root = self._root, next(self._roots, None)
        return Due(request, due)


def share(total: int, worker: int, workers: int) -> int:
    """How many of `total` slots one of `workers` workers holds; the shares add up to the total."""
    return total // workers + (worker < total % workers)


def leaves_after(seed: int, request: Request, leaving: float) -> int | None:
    """After how many tokens a request's user leaves, where a share `leaving` of them does; None for those who stay.
    The same in every process."""
    random = np.random.default_rng([seed, request.index])
    return 1 + int(random.integers(max(1, request.output_tokens))) if random.random() < leaving else None
