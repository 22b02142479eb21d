"""The OpenAI family: chat and plain completions, their chunks, usage, servers' own timings, [DONE].

vLLM, SGLang, TensorRT-LLM, NIM, Dynamo, llama.cpp, TGI's /v1 and the vendors' APIs speak it with small differences,
all of them read here: reasoning under two names, tool calls, usage in a chunk of its own or in each, errors inside a
stream. A role-only or empty chunk carries no token. Source: the servers' own code (2026).
"""

from __future__ import annotations

from typing import Any

from ..exchange import Call, Exchange
from . import lenient
from .interface import Reader, RequestFields, Wire, merged, messages, prompt

DONE = b"[DONE]"
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
NEWER_LENGTH = "max_completion_tokens"
MILLI = 1e-3
Body = dict[str, Any]


def _chat(call: Call, target: RequestFields) -> Body:
    return _body(call, target, {"messages": messages(call)})


def _completions(call: Call, target: RequestFields) -> Body:
    """The prompt is text or token ids."""
    return _body(call, target, {"prompt": call.prompt if isinstance(call.prompt, list) else prompt(call)})


def _groq(call: Call, target: RequestFields) -> Body:
    """GroqCloud, and a GroqRack behind the same API: refuses fields that it doesn't know, and has neither `ignore_eos`
    nor `min_tokens`: the output length is held by `max_completion_tokens` alone, unless the user insists.

    Usage comes with times (queue, prompt, completion; the total leaves the queue out) in the last chunk's `x_groq`,
    failures in mid-stream as `x_groq.error`, 498 is the flex tier's "no capacity now". Source:
    https://console.groq.com/docs/api-reference and the `groq` Python client's types.
    """
    return _body(call, target, {"messages": messages(call)}, length=NEWER_LENGTH, exact=bool(target.ignore_eos))


def _dynamo(call: Call, target: RequestFields) -> Body:
    """NVIDIA Dynamo's frontend: chat completions that also request the phases' times and the workers' ids.

    They come in `nvext`; a server that doesn't know `nvext.extra_fields` may refuse the request, which is why this is a
    type of its own and not part of chat. Source: dynamo, lib/llm/src/protocols/openai/nvext.rs.
    """
    nvext = {"extra_fields": ["timing", "worker_id"]}
    return _body(call, target, {"messages": messages(call), "nvext": nvext})


def _body(
    call: Call, target: RequestFields, fields: Body, *, length: str = "max_tokens", exact: bool | None = None
) -> Body:
    """The request's body: what every server of the family takes, the format's own `fields`, then the user's.

    length  name of the field that limits the answer's tokens
    exact   is exactly that many tokens asked for? None: unless the target says otherwise
    """
    own = dict(target.extra_body)
    if own.get(NEWER_LENGTH) == "{output_tokens}":  # OpenAI's newer models take it only
        length = NEWER_LENGTH
        del own[length]
    body = {"model": target.model, **fields, length: call.max_tokens, "stream": True}
    body["stream_options"] = {"include_usage": True}
    if (target.ignore_eos is not False) if exact is None else exact:
        body |= {"ignore_eos": True, "min_tokens": call.max_tokens}
    return merged(body, own)


class OpenAIReader(Reader):
    """The chunks of one answer, of chat and of completions alike.

    A usage beside the first text is that event's own count only where usage is continuous: where the next text comes
    with a larger one. Else it is a total that came early, or the last chunk's.
    """

    _first: int | None = None  # usage beside the first text, until the second came; 0 where there's none

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == DONE:
            self.finished = True
            return 0
        data = lenient.load(event)
        if data.get("error") or name == "error":
            raise lenient.failure(data)
        if "x_groq" in data:
            _note_groq(lenient.mapping(data["x_groq"]), exchange)
        choices = lenient.mappings(data.get("choices"))
        text = "".join([_text(choice, lenient.mapping(choice.get("delta"))) for choice in choices])
        note(data, choices[0] if choices else {}, exchange)
        if not text:
            return 0
        exchange.add_text(text)
        if self._first != 0:
            self._count_first(lenient.count(lenient.mapping(data.get("usage")).get("completion_tokens")) or 0, exchange)
        return 1

    def _count_first(self, total: int, exchange: Exchange) -> None:
        """How many tokens did the first text have? Its usage is known to be its own once the second's is larger."""
        if self._first is None:
            self._first = total
            return
        if total > self._first:
            exchange.first_tokens = self._first
        self._first = 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.load(body)
        if data.get("error"):
            raise lenient.failure(data)
        choices = lenient.mappings(data.get("choices"))
        note(data, choices[0] if choices else {}, exchange)
        texts = [_text(choice, lenient.mapping(choice.get("message"))) for choice in choices]
        return self.whole("".join(texts), exchange)


def _text(choice: dict[str, Any], delta: dict[str, Any]) -> str:
    """The text that a choice carries, whatever it is: an answer, reasoning, or the words of a tool call."""
    parts = [lenient.text(choice.get("text"))]
    parts += [lenient.text(delta.get(key)) for key in TEXTS]
    for call in lenient.mappings(delta.get("tool_calls")):
        function = lenient.mapping(call.get("function"))
        parts += [lenient.text(function.get("name")), lenient.text(function.get("arguments"))]
    return "".join(parts)


def note(data: dict[str, Any], choice: dict[str, Any], exchange: Exchange) -> None:
    """Put the facts of one chunk, or of a whole answer, onto the exchange."""
    exchange.request_id = exchange.request_id or lenient.name(data.get("id"))  # a header's id is the vendor's own
    exchange.model = lenient.name(data.get("model")) or exchange.model
    exchange.fingerprint = lenient.name(data.get("system_fingerprint")) or exchange.fingerprint
    exchange.service_tier = lenient.name(data.get("service_tier")) or exchange.service_tier
    exchange.finish_reason = lenient.name(choice.get("finish_reason")) or exchange.finish_reason
    usage = data.get("usage")
    if isinstance(usage, dict):
        note_usage(usage, exchange)
    if "timings" in data:
        _note_llamacpp(lenient.mapping(data["timings"]), exchange)
    if "metrics" in data:
        _note_vllm(lenient.mapping(data["metrics"]), exchange)
    if "nvext" in data:
        _note_dynamo(lenient.mapping(data["nvext"]), exchange)


def note_usage(
    usage: dict[str, Any], exchange: Exchange, prompt: str = "prompt_tokens", output: str = "completion_tokens"
) -> None:
    lenient.note(
        exchange,
        usage_prompt=lenient.count(usage.get(prompt)),
        usage_output=lenient.total(usage.get(output)),
        usage_cached=lenient.count(lenient.mapping(usage.get(f"{prompt}_details")).get("cached_tokens")),
        usage_reasoning=lenient.count(lenient.mapping(usage.get(f"{output}_details")).get("reasoning_tokens")),
        server_queue=lenient.seconds(usage.get("queue_time")),  # Groq's, in seconds; its total leaves the queue out
        server_prefill=lenient.seconds(usage.get("prompt_time")),
        server_decode=lenient.seconds(usage.get("completion_time")),
        server_total=lenient.seconds(usage.get("total_time")),
    )


def _note_groq(extension: dict[str, Any], exchange: Exchange) -> None:
    """Groq's own account: in the first chunk the request's id, in the last one usage with times, or an error."""
    exchange.request_id = lenient.name(extension.get("id")) or exchange.request_id
    if extension.get("error"):
        raise lenient.failure(extension)
    note_usage(lenient.mapping(extension.get("usage")), exchange)


def _note_llamacpp(timings: dict[str, Any], exchange: Exchange) -> None:
    lenient.note(
        exchange,
        server_prefill=lenient.seconds(timings.get("prompt_ms"), MILLI),
        server_decode=lenient.seconds(timings.get("predicted_ms"), MILLI),
    )


def _note_vllm(metrics: dict[str, Any], exchange: Exchange) -> None:
    lenient.note(
        exchange,
        server_queue=lenient.seconds(metrics.get("queue_time_ms"), MILLI),
        server_ttft=lenient.seconds(metrics.get("time_to_first_token_ms"), MILLI),
    )


def _note_dynamo(extension: dict[str, Any], exchange: Exchange) -> None:
    timing, workers = lenient.mapping(extension.get("timing")), lenient.mapping(extension.get("worker_id"))
    lenient.note(
        exchange,
        server_queue=lenient.seconds(timing.get("prefill_wait_time_ms"), MILLI),
        server_prefill=lenient.seconds(timing.get("prefill_time_ms"), MILLI),
        server_transfer=lenient.seconds(timing.get("kv_transfer_time_ms"), MILLI),  # never Dynamo's estimate
        server_decode=lenient.seconds(timing.get("decode_time_ms"), MILLI),
        server_ttft=lenient.seconds(timing.get("ttft_ms"), MILLI),
        server_total=lenient.seconds(timing.get("total_time_ms"), MILLI),
        prefill_worker=lenient.name(workers.get("prefill_worker_id")),
        decode_worker=lenient.name(workers.get("decode_worker_id")),
    )


CHAT = Wire("/v1/chat/completions", _chat, OpenAIReader)
COMPLETIONS = Wire("/v1/completions", _completions, OpenAIReader)
GROQ = Wire("/openai/v1/chat/completions", _groq, OpenAIReader)
DYNAMO = Wire("/v1/chat/completions", _dynamo, OpenAIReader)
