"""`Job`: one request inside the engine. `Station`: what works on jobs."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the engine; instants are engine seconds, -1 where not reached.

    number      order of arrival, breaks ties
    prompt      prompt tokens; output: answer tokens (at least 1); prefix: (id, tokens) of the prompt's leading blocks
    done        called once, at the instant of the last token: `done(job, now)`; that token gets no `emit` of its own
    sink        whatever the driver keeps with the job (a stream, a trace's row)
    """

    number: int
    arrival: float
    prompt: int
    output: int
    done: Callable[[Job, float], None]
    sink: Any = None
    prefix: tuple[tuple[int, int], ...] = ()
    # Facts, for the rows and for the wire.
    begun: float = field(default=-1.0, init=False)  # work on the prompt began
    handed: float = field(default=-1.0, init=False)  # the prefill pool was done with it
    transferred: float = field(default=-1.0, init=False)  # its KV cache reached the decode pool
    first: float = field(default=-1.0, init=False)  # first token
    last: float = field(default=-1.0, init=False)  # last token
    cached: int = field(default=0, init=False)  # prompt tokens found in a prefix cache
    preempted: int = field(default=0, init=False)
    times: array[float] | None = field(default=None, init=False)  # of each step that gave tokens, if the driver wants
    prefill_worker: int = field(default=-1, init=False)
    decode_worker: int = field(default=-1, init=False)
    # State, owned by the station that works on it.
    place: Any = field(default=None, init=False)  # the replica
    prefill_only: bool = field(default=False, init=False)  # stop when the prompt is computed, keep KV until `release`
    prefilled: bool = field(default=False, init=False)  # the prompt's KV came over the link
    todo: int = field(init=False)  # tokens to compute before the next comes out: after a preemption the answer's, too
    filled: int = field(default=0, init=False)  # of those, computed
    left: int = field(init=False)  # tokens still to come out
    blocks: int = field(default=0, init=False)  # KV blocks of its own
    shared: int = field(default=0, init=False)  # KV blocks that it shares with others, in the prefix cache
    pins: int = field(default=0, init=False)  # leading blocks of its prefix that these are
    base: int = field(default=0, init=False)  # context is base + step number of the replica
    entered: int = field(default=0, init=False)  # step number at which it joined the decode batch
    end_step: int = field(default=0, init=False)
    counts: list[int] | None = field(default=None, init=False)  # tokens of each decode step, with speculative decoding

    def __post_init__(self) -> None:
        self.todo, self.left = self.prompt, self.output


class Station(Protocol):
    """What works on jobs: a GPU replica, a rack, a pool of them, or a prefill pool, a link and a decode pool."""

    limit: int  # most tokens of one job, prompt and answer together

    @property
    def load(self) -> int:
        """Jobs waiting or in work."""
        ...

    @property
    def queued(self) -> int:
        """Those of them that wait."""
        ...

    @property
    def kv_use(self) -> float:
        """Share of the KV memory in use, 0 to 1."""
        ...

    def submit(self, job: Job, now: float) -> None: ...

    def cancel(self, job: Job, now: float) -> None:
        """The client went away: frees what the job holds; `done` is not called."""
        ...
