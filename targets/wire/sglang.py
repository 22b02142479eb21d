"""SGLang's own stream: `POST /generate`, events with the text so far and `meta_info`, then [DONE].

The counts are cumulative: an event carries as many tokens as `completion_tokens` rose by, even where they show no text
yet; without that field an event with new text is one. Text is cumulative too, unless the server was started with
`--stream-output` or `--incremental-streaming-output`: such an event's text doesn't begin with the text so far.
`ignore_eos` holds the output length. Source: sglang, python/sglang/srt/managers/tokenizer_manager.py.
"""

from __future__ import annotations

from typing import Any

from ..exchange import Call, Exchange, Outcome
from . import lenient
from .interface import Reader, RequestFields, Wire, WireError, merged, prompt

ABORTS = {429: Outcome.RATE_LIMITED, 503: Outcome.RATE_LIMITED}


def _body(call: Call, target: RequestFields) -> dict[str, Any]:
    sampling: dict[str, Any] = {"max_new_tokens": call.max_tokens}
    if target.ignore_eos is not False:
        sampling["ignore_eos"] = True
    given = {"input_ids": call.prompt} if isinstance(call.prompt, list) else {"text": prompt(call)}
    return merged({**given, "sampling_params": sampling, "stream": True}, target.extra_body)


class SglangReader(Reader):
    _tokens = 0
    _so_far: str | None = ""  # the text so far; None where events carry new text only

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == b"[DONE]":
            self.finished = True
            return 0
        data = lenient.load(event)
        if data.get("error"):
            raise lenient.failure(data)
        meta = lenient.mapping(data.get("meta_info"))
        _note(meta, exchange)
        text = self._new(lenient.text(data.get("text")))
        exchange.add_text(text)
        seen = lenient.count(meta.get("completion_tokens"))
        if seen is None:
            return int(bool(text))
        new, self._tokens = max(0, seen - self._tokens), max(seen, self._tokens)
        return new

    def _new(self, text: str) -> str:
        """What an event's text adds to the answer."""
        so_far = self._so_far
        if so_far is not None and text.startswith(so_far):
            self._so_far = text
            return text[len(so_far) :]
        self._so_far = None
        return text


def _note(meta: dict[str, Any], exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or lenient.name(meta.get("id"))
    finish = lenient.mapping(meta.get("finish_reason"))
    lenient.note(
        exchange,
        usage_prompt=lenient.count(meta.get("prompt_tokens")),
        usage_output=lenient.total(meta.get("completion_tokens")),
        usage_cached=lenient.count(meta.get("cached_tokens")),
        server_total=lenient.seconds(meta.get("e2e_latency")),
        server_queue=lenient.seconds(meta.get("queue_time")),
        finish_reason=lenient.name(finish.get("type")),
    )
    if finish.get("type") == "abort":
        status = lenient.count(finish.get("status_code"))
        raise WireError(lenient.complaint(finish), ABORTS.get(status or 0, Outcome.HTTP_ERROR))


WIRE = Wire("/generate", _body, SglangReader)
