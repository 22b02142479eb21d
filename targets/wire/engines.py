"""Model servers' own streams, beside the OpenAI API that they serve too: SGLang's, TGI's and Triton's.

SGLang: `POST /generate`, events with the text so far and `meta_info`, then [DONE]. The counts are cumulative: an event
carries as many tokens as `completion_tokens` rose by, even where they show no text yet; without that field an event
with new text is one. Text is cumulative too, unless the server was started with `--stream-output` or
`--incremental-streaming-output`: such an event's text doesn't begin with the text so far. `ignore_eos` holds the output
length. Source: sglang, python/sglang/srt/managers/tokenizer_manager.py.

TGI: `POST /generate_stream`, one event a token, the last one with `generated_text` and `details`; no [DONE].
`max_new_tokens` alone holds the output length. Source: text-generation-inference, router/src/lib.rs (StreamResponse,
StreamDetails).

Triton's generate extension: `POST /v2/models/M/generate_stream`, events with `text_output`. Only `text_input`,
`max_tokens` and `stream` are sent, because a model refuses inputs that it doesn't have; what one has besides
(`ignore_eos` inside `parameters`, `min_tokens`, `exclude_input_in_output`) goes in extra_body. There is neither usage
nor a terminator: the end of the body ends the answer, and the HTTP framing shows a cut. Source: Triton server,
docs/protocol/extension_generate.md.
"""

from __future__ import annotations

from ..exchange import Call, Exchange, Outcome
from . import lenient
from .interface import Json, Reader, RequestFields, Wire, WireError, merged, prompt

ABORTS = {429: Outcome.RATE_LIMITED, 503: Outcome.RATE_LIMITED}


def _sglang(call: Call, target: RequestFields) -> Json:
    sampling: Json = {"max_new_tokens": call.max_tokens}
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
        data = lenient.sound(event)
        lenient.only_choice([data])  # of several its events have an index
        meta = lenient.mapping(data.get("meta_info"))
        _note_sglang(meta, exchange)
        self.open_ended = exchange.finish_reason is not None
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


def _note_sglang(meta: Json, exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or lenient.name(meta.get("id"))
    finish = lenient.mapping(meta.get("finish_reason"))
    lenient.note(
        exchange, usage_prompt=lenient.count(meta.get("prompt_tokens")),
        usage_output=lenient.total(meta.get("completion_tokens")),
        usage_cached=lenient.count(meta.get("cached_tokens")), server_total=lenient.seconds(meta.get("e2e_latency")),
        server_queue=lenient.seconds(meta.get("queue_time")), finish_reason=lenient.name(finish.get("type")),
    )  # fmt: skip
    if finish.get("type") == "abort":
        status = lenient.count(finish.get("status_code"))
        raise WireError(lenient.complaint(finish), ABORTS.get(status or 0, Outcome.HTTP_ERROR))


def _tgi(call: Call, target: RequestFields) -> Json:
    parameters = {"max_new_tokens": call.max_tokens, "details": True}
    return merged({"inputs": prompt(call), "parameters": parameters, "stream": True}, target.extra_body)


class TgiReader(Reader):
    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = _noted_tgi(event, exchange)
        self.finished = self.finished or data.get("generated_text") is not None
        token = data.get("token")
        if not isinstance(token, dict):
            return 0
        exchange.add_text(lenient.text(token.get("text")))
        return 1

    def answer(self, body: bytes, exchange: Exchange) -> int:
        return self.whole(lenient.text(_noted_tgi(body, exchange).get("generated_text")), exchange)


def _noted_tgi(event: bytes | memoryview, exchange: Exchange) -> Json:
    """The event's object, its details put onto the exchange."""
    data = lenient.sound(event)
    details = lenient.mapping(data.get("details"))
    lenient.note(
        exchange,
        finish_reason=lenient.name(details.get("finish_reason")),
        usage_output=lenient.total(details.get("generated_tokens")),
        usage_prompt=lenient.count(details.get("input_length")),
    )
    return data


def _triton(call: Call, target: RequestFields) -> Json:
    return merged({"text_input": prompt(call), "max_tokens": call.max_tokens, "stream": True}, target.extra_body)


class TritonReader(Reader):
    open_ended = True

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        data = lenient.sound(event)
        exchange.model = lenient.name(data.get("model_name")) or exchange.model
        exchange.request_id = exchange.request_id or lenient.name(data.get("id"))
        text = lenient.text(data.get("text_output"))
        exchange.add_text(text)
        return 1 if text else 0


SGLANG = Wire("/generate", _sglang, SglangReader)
TGI = Wire("/generate_stream", _tgi, TgiReader)
TRITON = Wire("/v2/models/{model}/generate_stream", _triton, TritonReader)
