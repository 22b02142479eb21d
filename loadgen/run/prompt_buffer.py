"""Prompts made ready before they are due.

Writing a prompt of 100,000 tokens takes milliseconds, and a body that is written at the due instant makes the next
request late. So prompts are written in the order of the trace: as many as the budget holds before the step starts,
the rest by a greenlet that works only while no request is about to be due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import gevent

from traces.prompts import Prompts
from traces.trace import Request, Trace

BUDGET = 64_000_000  # characters held ready
ID_SIZE = 8  # bytes of a token id in a list (small integers are shared, its body text is about as long)
CALM = 3_000_000  # nanoseconds before the next due instant within which nothing is written


class Prompt(NamedTuple):
    """A request's prompt and its conversation so far, as a Call has them, and what they count in the budget."""

    prompt: str | list[int]
    history: tuple[tuple[str, str], ...]
    size: int


class PromptBuffer:
    """The prompts of one worker's requests of one arm: texts, or token ids below `vocabulary`."""

    def __init__(self, trace: Trace, prompts: Prompts, vocabulary: int | None = None, budget: int = BUDGET) -> None:
        self.unprepared = 0  # prompts that were not ready when they were due
        self._prompts, self._vocabulary, self._budget = prompts, vocabulary, budget
        self._ready: dict[int, Prompt] = {}
        self._taken: set[int] = set()  # written on demand, before their turn came
        self._held = 0
        self._rows: Iterator[Request] = iter(trace)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def fill(self) -> None:
        """Before the step: as much as the budget holds."""
        while self._held < self._budget and self._next():
            gevent.sleep(0)  # heartbeats must go on

    def start(self, idle: Callable[[], int]) -> None:
        """Goes on while the step runs; `idle` gives the nanoseconds that are left until something is due."""
        self._greenlet = gevent.spawn(self._refill, idle)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def take(self, request: Request) -> Prompt:
        """The prompt of a request that is due, written now where it isn't ready."""
        prompt = self._ready.pop(request.index, None)
        if prompt is None:
            self.unprepared += 1
            self._taken.add(request.index)
            return self._write(request)
        self._held -= prompt.size
        return prompt

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
            self._ready[request.index] = prompt = self._write(request)
            self._held += prompt.size
        return True

    def _write(self, request: Request) -> Prompt:
        if self._vocabulary is not None:
            return Prompt(self._prompts.ids(request, self._vocabulary), (), ID_SIZE * request.prompt_tokens)
        text, history = self._prompts.text(request), tuple(self._prompts.history(request))
        return Prompt(text, history, len(text) + sum(len(message) for _, message in history))
