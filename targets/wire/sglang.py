"""SGLang's own stream: `POST /generate`, events with the text so far and `meta_info`, then [DONE].

The counts are cumulative: an event carries as many tokens as `completion_tokens` rose by, even where they show no text
yet. `ignore_eos` holds the output length. Source: sglang, python/sglang/srt/managers/tokenizer_manager.py.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..exchange import Exchange, Outcome
from ..target import Ask, Spec
from . import WireError, facts

ABORTS = {429: Outcome.RATE_LIMITED, 503: Outcome.RATE_LIMITED}


def request(ask: Ask, spec: Spec) -> tuple[str, list[tuple[str, str]], bytes]:
    sampling: dict[str, Any] = {"max_new_tokens": ask.tokens}
    if spec.ignore_eos is not False:
        sampling["ignore_eos"] = True
    prompt = {"input_ids": ask.prompt} if isinstance(ask.prompt, list) else {"text": facts.prompt(ask)}
    body = {**prompt, "sampling_params": sampling, "stream": True, **spec.extra_body}
    return "/generate", [], orjson.dumps(body)


class Reader:
    """The events of one answer."""

    __slots__ = ("_tokens", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._tokens = 0

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == b"[DONE]":
            self.finished = True
            return 0
        data = facts.load(event)
        if "error" in data:
            raise WireError(facts.complaint(data), Outcome.HTTP_ERROR)
        meta = facts.mapping(data.get("meta_info"))
        _note(meta, exchange)
        exchange.hear(facts.text(data.get("text"))[exchange.chars :])
        seen = facts.count(meta.get("completion_tokens")) or 0
        new, self._tokens = max(0, seen - self._tokens), max(seen, self._tokens)
        return new

    def answer(self, body: bytes, exchange: Exchange) -> int:
        self.finished = True
        return self.feed(body, "", exchange)


def _note(meta: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or facts.name(meta.get("id"))
    exchange.usage_prompt = facts.count(meta.get("prompt_tokens"))
    exchange.usage_output = facts.count(meta.get("completion_tokens"))
    exchange.usage_cached = facts.count(meta.get("cached_tokens"))
    exchange.server_total = facts.seconds(meta.get("e2e_latency"))
    exchange.server_queue = facts.seconds(meta.get("queue_time"))
    finish = facts.mapping(meta.get("finish_reason"))
    exchange.finish_reason = facts.name(finish.get("type")) or exchange.finish_reason
    if finish.get("type") == "abort":
        status = facts.count(finish.get("status_code"))
        raise WireError(facts.complaint(finish), ABORTS.get(status or 0, Outcome.HTTP_ERROR))
