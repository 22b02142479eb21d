"""`Job`: one request inside the engine. `Station`: what works on jobs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Job:
    """A request on its way through the engine; instants are engine seconds, -1 where not reached.

    number      order of arrival, breaks ties
    prompt      prompt tokens; output: answer tokens (at least 1); prefix: (id, tokens) of the prompt's leading blocks
    done        called once, at the instant of the last token: `done(job, now)`; that token gets no `emit` of its own
    sink        whatever the driver keeps with the job (a stream, a trace's row)
    """

    __slots__ = (
        "arrival",
        "base",
        "begun",
        "blocks",
        "cached",
        "counts",
        "decode_worker",
        "done",
        "end_step",
        "entered",
        "filled",
        "first",
        "handed",
        "last",
        "left",
        "number",
        "output",
        "pins",
        "place",
        "preempted",
        "prefill_only",
        "prefill_worker",
        "prefilled",
        "prefix",
        "prompt",
        "shared",
        "sink",
        "times",
        "todo",
        "transferred",
    )

    def __init__(
        self,
        number: int,
        arrival: float,
        prompt: int,
        output: int,
        done: Callable[[Job, float], None],
        sink: Any = None,
        prefix: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.number, self.arrival, self.prompt, self.output = number, arrival, prompt, output
        self.done, self.sink, self.prefix = done, sink, prefix
        # Facts, for the rows and for the wire.
        self.begun = -1.0  # work on the prompt began
        self.handed = -1.0  # the prefill pool was done with it
        self.transferred = -1.0  # its KV cache reached the decode pool
        self.first = -1.0  # first token
        self.last = -1.0  # last token
        self.cached = 0  # prompt tokens found in a prefix cache
        self.preempted = 0
        self.times: array[float] | None = None  # of each step that gave tokens, where the driver wants them
        self.prefill_worker = self.decode_worker = -1
        # State, owned by the station that works on it.
        self.place: Any = None  # the replica
        self.prefill_only = False  # stop when the prompt is computed and keep its KV until `release`
        self.prefilled = False  # the prompt's KV came over the link
        self.todo = (
            prompt  # tokens to compute before the next token comes out; after a preemption, the answer so far too
        )
        self.filled = 0  # of those, computed
        self.left = output  # tokens still to come out
        self.blocks = 0  # KV blocks of its own
        self.shared = 0  # KV blocks that it shares with others, in the prefix cache
        self.pins = 0  # leading blocks of its prefix that these are
        self.base = 0  # context is base + step number of the replica
        self.entered = 0  # step number at which it joined the decode batch
        self.end_step = 0
        self.counts: list[int] | None = None  # tokens of each decode step, with speculative decoding


Emit = Callable[[Iterable[Job], float], None]


class Station(Protocol):
    """What works on jobs: a GPU replica, a rack, a pool of them, or a prefill pool, a link and a decode pool.

    `emit` is told, in real time only, the jobs that put out tokens at an instant, but for each job's last one.
    """

    emit: Emit | None

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

    @property
    def limit(self) -> int:
        """Most tokens of one job, prompt and answer together."""
        ...

    def submit(self, job: Job, now: float) -> None: ...

    def cancel(self, job: Job, now: float) -> None:
        """The client went away: frees what the job holds; `done` is not called."""
        ...
