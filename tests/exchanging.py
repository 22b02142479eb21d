"""Exchanges started at once on one target, and handed back when all are over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gevent.event import Event

from targets import connect
from targets.clock import Clock
from targets.exchange import Call, Exchange
from targets.target import Target
from tests.exchanges import make_call


def asks(count: int, words: int = 50, tokens: int = 8, **more: Any) -> list[Call]:
    """Prompts that share no word."""
    return [make_call(i, 0, " ".join(f"w{i}x{k}" for k in range(words)), words, tokens, **more) for i in range(count)]


def run(spec: Target, asks: Sequence[Call], meanwhile: Callable[[Any], object] = lambda target: None) -> list[Exchange]:
    """The exchanges by index; `meanwhile` gets the target once all are started."""
    target, over, everything = connect(spec, Clock()), list[Exchange](), Event()

    def done(exchange: Exchange) -> None:
        over.append(exchange)
        if len(over) == len(asks):
            everything.set()

    for ask in asks:
        target.start(ask, done)
    meanwhile(target)
    assert everything.wait(30), f"{len(asks) - len(over)} exchanges hang"
    target.close()
    return sorted(over, key=lambda exchange: exchange.index)
