"""`TokenCounting`: answers' tokens by a local tokenizer.json, in a native thread, before their rows are recorded.

Vendors count tokens each in their own way, and some don't count: what this counts is the same for all targets. An
exchange that is over waits here while others go on; the text is forgotten once it is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import Queue

from targets.exchange import Exchange
from traces.words import counter

log = logging.getLogger(__name__)


class TokenCounting:
    """`record(exchange)` is called for each exchange that was put, in their order."""

    def __init__(self, tokenizer: str, record: Callable[[Exchange], None]) -> None:
        self._count, self._record = counter(tokenizer), record
        self._queue: Queue[Any] = Queue()
        self._greenlet = gevent.spawn(self._work)

    def put(self, exchange: Exchange) -> None:
        self._queue.put(exchange)

    def close(self) -> None:
        """Returns when all are counted and recorded."""
        self._queue.put(None)
        self._greenlet.join()

    def _work(self) -> None:
        pool = gevent.get_hub().threadpool
        while (exchange := self._queue.get()) is not None:
            text = exchange.take_text()
            if text is not None:
                try:
                    exchange.tokenizer_output = pool.apply(self._count, (text,))
                except Exception:  # a text that the tokenizer can't take must not cost the row
                    log.exception("the answer of request %d was not counted", exchange.index)
            self._record(exchange)
