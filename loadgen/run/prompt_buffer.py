"""Prompts made ready before they are due.

Writing a prompt of 100,000 tokens takes milliseconds, and a body that is written at the due instant makes the next
request late. So prompts are written in the order of the trace: as many as the budget holds before the phase starts,
the rest by a greenlet that works only while no request is about to be due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent

from targets.target import Call
from traces.prompts.prompts import Prompts
from traces.trace import Request, Trace

from .schedule import Due

BUDGET = 64_000_000  # characters held ready
ID_SIZE = 8  # bytes of a token id in a list (small integers are shared, its body text is about as long)
CALM = 3_000_000  # nanoseconds before the next due instant within which nothing is written

Written = tuple[str | list[int], tuple[tuple[str, str], ...], int]  # prompt, history, what they count in the budget


class PromptBuffer:
    """The prompts of one leg's shard: texts, or token ids below `vocabulary`."""

    def __init__(self, trace: Trace, prompts: Prompts, vocabulary: int | None = None, budget: int = BUDGET) -> None:
        self.unprepared = 0  # prompts that were not ready when they were due
        self._prompts, self._vocabulary, self._budget = prompts, vocabulary, budget
        self._ready: dict[int, Written] = {}
        self._taken: set[int] = set()  # written on demand, before their turn came
        self._held = 0
        self._rows: Iterator[Request] = iter(trace)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def fill(self) -> None:
        """Before the phase: as much as the budget holds."""
        while self._held < self._budget and self._next():
            gevent.sleep(0)  # heartbeats must go on

    def start(self, idle: Callable[[], int]) -> None:
        """`idle` tells how many nanoseconds are left until something is due."""
        self._greenlet = gevent.spawn(self._refill, idle)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def ask(self, entry: Due, *, start: int, step: str, counted: bool) -> Call:
        """The entry as it is sent, in a phase that starts at `start` (ns from the run's start)."""
        request = entry.request
        written = self._ready.pop(request.index, None)
        if written is None:
            self.unprepared += 1
            self._taken.add(request.index)
            written = self._write(request)
        else:
            self._held -= written[2]
        return Call(
            index=request.index,
            due=start + entry.due,
            prompt=written[0],
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            step=step,
            session=request.session,
            turn=request.turn,
            planned=None if entry.planned is None else start + entry.planned,
            counted=counted,
            history=written[1],
        )

    def _refill(self, idle: Callable[[], int]) -> None:
        more = True
        while more:
            if self._held < self._budget and idle() > CALM:
                more = self._next()
                gevent.sleep(0)
            else:
                gevent.sleep(0.002)

    def _next(self) -> bool:
        request = next(self._rows, None)
        if request is None:
            return False
        if request.index in self._taken:
            self._taken.remove(request.index)
        else:
            self._ready[request.index] = written = self._write(request)
            self._held += written[2]
        return True

    def _write(self, request: Request) -> Written:
        if self._vocabulary is not None:
            return self._prompts.ids(request, self._vocabulary), (), ID_SIZE * request.prompt_tokens
        text, history = self._prompts.text(request), tuple(self._prompts.history(request))
        return text, history, len(text) + sum(len(said) for _, said in history)
