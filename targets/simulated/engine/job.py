"""What all of the engine shares: the event queue, `Job`, one request inside it, and `Station`, what works on jobs.

The queue is turned by both drivers: virtual time jumps to the next event, real time sleeps until it. Instants are
float seconds from the engine's start. Equal instants run in the order in which they were set. An event can't be taken
back: a station that no longer needs it ignores it (`Replica._wake`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, Protocol


class EventQueue:
    """`at` sets an event, `run` lets everything due happen; `now` is the instant of the event that is happening.
    `emit`, set in real time only, is called with the jobs that put out tokens at an instant, each but its last one."""

    __slots__ = ("_count", "_heap", "emit", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.emit: Callable[[Iterable[Any], float], None] | None = None
        self._heap: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        self._count = 0

    def at(self, instant: float, action: Callable[[float, Any], None], argument: Any = None) -> None:
        """Calls `action(instant, argument)` when its instant comes."""
        self._count += 1
        heappush(self._heap, (instant, self._count, action, argument))

    @property
    def next(self) -> float:
        """Instant of the next event, infinite where there is none."""
        return self._heap[0][0] if self._heap else inf

    def run(self, until: float) -> None:
        """Everything due at or before `until`, in order."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            instant, _, action, argument = heappop(heap)
            self.now = instant
            action(instant, argument)


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the engine; instants are engine seconds, -1 where not reached."""

    number: int  # order of arrival, breaks ties
    arrival: float
    prompt: int  # tokens
    output: int  # tokens of the answer, at least 1
    done: Callable[[Job, float], None]  # called once, at the instant of the last token, which gets no `emit` of its own
    sink: Any = None  # whatever the driver keeps with the job (a stream, a trace's row)
    prefix: tuple[tuple[int, int], ...] = ()  # (id, tokens) of the prompt's leading blocks
    # Facts, for the rows and for the wire.
    begun: float = -1.0  # work on the prompt began
    handed: float = -1.0  # the prefill pool was done with it
    transferred: float = -1.0  # its KV cache reached the decode pool
    first: float = -1.0  # first token
    last: float = -1.0  # last token
    cached: int = 0  # prompt tokens found in a prefix cache
    preempted: int = 0
    times: array[float] | None = None  # of each step that gave tokens, if the driver wants
    prefill_worker: int = -1
    decode_worker: int = -1
    # State, owned by the station that works on it.
    place: Any = None  # the replica
    prefill_only: bool = False  # stop when the prompt is computed, keep KV until `release`
    prefilled: bool = False  # the prompt's KV came over the link
    todo: int = field(init=False)  # tokens to compute before the next comes out: after a preemption the answer's, too
    filled: int = 0  # of those, computed
    left: int = field(init=False)  # tokens still to come out
    blocks: int = 0  # KV blocks of its own
    shared: int = 0  # KV blocks that it shares with others, in the prefix cache
    pins: int = 0  # leading blocks of its prefix that these are
    base: int = 0  # context is base + step number of the replica
    entered: int = 0  # step number at which it joined the decode batch
    end_step: int = 0
    counts: list[int] | None = None  # tokens of each decode step, with speculative decoding

    def __post_init__(self) -> None:
        self.todo, self.left = self.prompt, self.output

    def phases(self) -> tuple[float, float, float, float]:
        """Seconds of a finished job in queue, prefill, KV transfer and decode; together its end-to-end time."""
        queue, decode = self.begun - self.arrival, self.last - self.first
        if self.transferred < 0:
            return queue, self.first - self.begun, 0.0, decode
        # Waiting for a place in the decode pool is queueing too.
        queue += self.first - self.transferred
        return queue, self.handed - self.begun, self.transferred - self.handed, decode


class Station(Protocol):
    """What works on jobs: a GPU replica, a rack, a pool of them, or a prefill pool, a link and a decode pool."""

    limit: int  # most tokens of one job, prompt and answer together

    def use(self) -> tuple[int, int, float]: ...  # jobs in work, jobs that wait, share of the KV memory in use, 0 to 1

    def submit(self, job: Job, now: float) -> None: ...

    def cancel(self, job: Job, now: float) -> None: ...  # the client left: frees what it holds; no `done` is called
