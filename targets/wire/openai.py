"""The OpenAI family: chat and plain completions, their chunks, usage, servers' own timings, [DONE]; and responses.

vLLM, SGLang, TensorRT-LLM, NIM, Dynamo, llama.cpp, TGI's /v1 and the vendors' APIs speak it with small differences,
all of them read here: reasoning under two names, tool calls, usage in a chunk of its own or in each, errors inside a
stream. A role-only or empty chunk carries no token. Source: the servers' own code (2026).

Responses (`POST /v1/responses`) are typed events from `response.created` to `response.completed`. `max_output_tokens`
alone holds the output length (`response.incomplete` is then the usual end). Text, reasoning and tool-call arguments
come as deltas; the `.done` events repeat them and carry nothing new.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from ..exchange import Call, Exchange
from . import lenient
from .interface import Json, Reader, RequestFields, Wire, merged, messages, prompt

DONE = b"[DONE]"
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
NEWER_LENGTH = "max_completion_tokens"
USAGE_SECONDS = {  # Groq's times; its total leaves the queue out
    "queue_time": "server_queue", "prompt_time": "server_prefill", "completion_time": "server_decode",
    "total_time": "server_total",
}  # fmt: skip
ACCOUNTS = {  # other servers' times in a chunk: the object, its names for them and ours; milliseconds
    "timings": {"prompt_ms": "server_prefill", "predicted_ms": "server_decode"},  # llama.cpp
    "metrics": {"queue_time_ms": "server_queue", "time_to_first_token_ms": "server_ttft"},  # vLLM
}
DYNAMO_TIMING = {  # kv_transfer_estimated_latency_ms is an estimate, and never taken
    "prefill_wait_time_ms": "server_queue", "prefill_time_ms": "server_prefill",
    "kv_transfer_time_ms": "server_transfer", "decode_time_ms": "server_decode", "ttft_ms": "server_ttft",
    "total_time_ms": "server_total",
}  # fmt: skip
RESPONSE_ENDS = {"response.completed", "response.incomplete"}
RESPONSE_FAILURES = {"error", "response.failed"}
RESPONSE_TEXTS = ("summary", "content", "arguments")  # of an answer's reasoning, message or tool call


def _chat(call: Call, target: RequestFields) -> Json:
    return _body(call, target, {"messages": messages(call)})


def _completions(call: Call, target: RequestFields) -> Json:
    """The prompt is text or token ids."""
    return _body(call, target, {"prompt": call.prompt if isinstance(call.prompt, list) else prompt(call)})


def _groq(call: Call, target: RequestFields) -> Json:
    """GroqCloud, and a GroqRack behind the same API: refuses fields that it doesn't know, and has neither `ignore_eos`
    nor `min_tokens`: the output length is held by `max_completion_tokens` alone, unless the user insists.

    Usage comes with times (queue, prompt, completion; the total leaves the queue out) in the last chunk's `x_groq`,
    failures in mid-stream as `x_groq.error`, 498 is the flex tier's "no capacity now". Source:
    https://console.groq.com/docs/api-reference and the `groq` Python client's types.
    """
    return _body(call, target, {"messages": messages(call)}, length=NEWER_LENGTH, exact=bool(target.ignore_eos))


def _dynamo(call: Call, target: RequestFields) -> Json:
    """NVIDIA Dynamo's frontend: chat completions that also request the phases' times and the workers' ids. They come in
    `nvext`; a server that doesn't know `nvext.extra_fields` may refuse the request, which is why this is a type of its
    own and not part of chat. Source: dynamo, lib/llm/src/protocols/openai/nvext.rs."""
    nvext = {"extra_fields": ["timing", "worker_id"]}
    return _body(call, target, {"messages": messages(call), "nvext": nvext})


def _body(call: Call, target: RequestFields, fields: Json, length: str = "max_tokens", exact: bool = True) -> Json:
    """The request's body: what every server of the family takes, the format's own `fields`, then the user's. `length`:
    name of the field that limits the answer's tokens; `exact`: exactly that many are wanted."""
    own = dict(target.extra_body)
    if own.get(NEWER_LENGTH) == "{output_tokens}":  # OpenAI's newer models take it only
        length = NEWER_LENGTH
        del own[length]
    body = {"model": target.model, **fields, length: call.max_tokens, "stream": True}
    body["stream_options"] = {"include_usage": True}
    if exact and target.ignore_eos is not False:
        body |= {"ignore_eos": True, "min_tokens": call.max_tokens}
    return merged(body, own)


class OpenAIReader(Reader):
    """The chunks of one answer, of chat and of completions alike. A usage beside the first text is that event's own
    count only where usage is continuous: where the next text comes with a larger one. Else it is a total that came
    early, or the last chunk's."""

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
        choice = lenient.only_choice(choices)
        text = _text(choice, lenient.mapping(choice.get("delta")))
        note(data, choices, exchange)
        self.open_ended = exchange.finish_reason is not None
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
        data = lenient.sound(body)
        choices = lenient.mappings(data.get("choices"))
        choice = lenient.only_choice(choices)
        note(data, choices, exchange)
        return self.whole(_text(choice, lenient.mapping(choice.get("message"))), exchange)


def _text(choice: Json, delta: Json) -> str:
    """The text that a choice carries, whatever it is: an answer, reasoning, or the words of a tool call."""
    parts = [lenient.text(choice.get("text"))]
    parts += [lenient.text(delta.get(key)) for key in TEXTS]
    for call in lenient.mappings(delta.get("tool_calls")):
        function = lenient.mapping(call.get("function"))
        parts += [lenient.text(function.get("name")), lenient.text(function.get("arguments"))]
    return "".join(parts)


def note(data: Json, choices: list[Json], exchange: Exchange) -> None:
    """Put the facts of one chunk, or of a whole answer, onto the exchange."""
    exchange.request_id = exchange.request_id or lenient.name(data.get("id"))  # a header's id is the vendor's own
    exchange.model = lenient.name(data.get("model")) or exchange.model
    exchange.fingerprint = lenient.name(data.get("system_fingerprint")) or exchange.fingerprint
    exchange.service_tier = lenient.name(data.get("service_tier")) or exchange.service_tier
    if choices:
        exchange.finish_reason = lenient.name(choices[0].get("finish_reason")) or exchange.finish_reason
    usage = data.get("usage")
    if isinstance(usage, dict):
        note_usage(usage, exchange)
    for account, names in ACCOUNTS.items():
        if account in data:
            _note_seconds(data[account], names, exchange)
    if "nvext" in data:
        _note_dynamo(lenient.mapping(data["nvext"]), exchange)


def note_usage(
    usage: Json, exchange: Exchange, prompt: str = "prompt_tokens", output: str = "completion_tokens"
) -> None:
    lenient.note(
        exchange,
        usage_prompt=lenient.count(usage.get(prompt)),
        usage_output=lenient.total(usage.get(output)),
        usage_cached=lenient.count(lenient.mapping(usage.get(f"{prompt}_details")).get("cached_tokens")),
        usage_reasoning=lenient.count(lenient.mapping(usage.get(f"{output}_details")).get("reasoning_tokens")),
    )
    if not USAGE_SECONDS.keys().isdisjoint(usage):
        _note_seconds(usage, USAGE_SECONDS, exchange, 1.0)


def _note_groq(extension: Json, exchange: Exchange) -> None:
    """Groq's own account: in the first chunk the request's id, in the last one usage with times, or an error."""
    exchange.request_id = lenient.name(extension.get("id")) or exchange.request_id
    if extension.get("error"):
        raise lenient.failure(extension)
    note_usage(lenient.mapping(extension.get("usage")), exchange)


def _note_seconds(account: object, names: dict[str, str], exchange: Exchange, unit: float = 1e-3) -> None:
    times = lenient.mapping(account)
    lenient.note(exchange, **{ours: lenient.seconds(times.get(theirs), unit) for theirs, ours in names.items()})


def _note_dynamo(extension: Json, exchange: Exchange) -> None:
    workers = lenient.mapping(extension.get("worker_id"))
    _note_seconds(extension.get("timing"), DYNAMO_TIMING, exchange)
    lenient.note(
        exchange,
        prefill_worker=lenient.name(workers.get("prefill_worker_id")),
        decode_worker=lenient.name(workers.get("decode_worker_id")),
    )


def _responses(call: Call, target: RequestFields) -> Json:
    body = {"model": target.model, "input": messages(call), "max_output_tokens": call.max_tokens, "stream": True}
    return merged(body, target.extra_body)


class ResponsesReader(Reader):
    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        if event == DONE:
            return 0
        data = lenient.load(event)
        kind = lenient.text(data.get("type"))
        if kind.endswith(".delta"):
            text = lenient.text(data.get("delta"))
            exchange.add_text(text)
            return 1 if text else 0
        response = lenient.mapping(data.get("response"))
        if kind in RESPONSE_FAILURES:
            raise lenient.failure(response if response else data)
        _note_response(response, exchange)
        self.finished = self.finished or kind in RESPONSE_ENDS
        return 0

    def answer(self, body: bytes, exchange: Exchange) -> int:
        data = lenient.sound(body)
        _note_response(data, exchange)
        items = lenient.mappings(data.get("output"))
        return self.whole("".join(lenient.text(item.get(key)) for item in items for key in RESPONSE_TEXTS), exchange)


def _note_response(response: Json, exchange: Exchange) -> None:
    exchange.request_id = exchange.request_id or lenient.name(response.get("id"))
    exchange.model = lenient.name(response.get("model")) or exchange.model
    exchange.service_tier = lenient.name(response.get("service_tier")) or exchange.service_tier
    reason = lenient.mapping(response.get("incomplete_details")).get("reason") or response.get("status")
    exchange.finish_reason = lenient.name(reason) or exchange.finish_reason
    note_usage(lenient.mapping(response.get("usage")), exchange, "input_tokens", "output_tokens")


CHAT = Wire("/v1/chat/completions", _chat, OpenAIReader)
COMPLETIONS = Wire("/v1/completions", _completions, OpenAIReader)
GROQ = Wire("/openai/v1/chat/completions", _groq, OpenAIReader)
DYNAMO = Wire("/v1/chat/completions", _dynamo, OpenAIReader)
RESPONSES = Wire("/v1/responses", _responses, ResponsesReader)
