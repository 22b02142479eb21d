"""The body of a request: parsed and checked, or refused as the vendor would. Pure.

A token is a whitespace-delimited word of the messages' contents, or one id where the prompt is token ids; the chat
template adds none. The simulated model always writes up to the limit, so `ignore_eos` and `min_tokens` are accepted
and change nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]  # an object that a stranger wrote, or that strangers will read

CHAT_DEFAULT, COMPLETIONS_DEFAULT = 256, 16
GROQ_REFUSES = ("logprobs", "logit_bias", "top_logprobs")


class ApiError(Exception):
    """Answered with `status` and the vendor's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str,
        code: str | int | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.headers = headers or {}

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class RequestBody:
    api: str  # "chat", "completions" or "groq"
    prompt_tokens: int
    output_tokens: int
    stream: bool
    usage: bool  # a usage chunk at the end of the stream
    words: tuple[Any, ...] = ()  # the prompt's tokens
    timing: bool = False  # nvext.timing
    workers: bool = False  # nvext.worker_id
    fields: Json = field(default_factory=dict)  # the body but for its prompt


def parse(api: str, raw: bytes, model: str, context: int) -> RequestBody:
    """`context`: most tokens of prompt and answer together. Raises ApiError."""
    body = _object(raw)
    if body.get("model", model) != model:
        raise _unknown_model(api, str(body["model"])[:200])
    words = _completion_words(body) if api == "completions" else _chat_words(body)
    if not words:
        raise ApiError(400, "the prompt is empty", "invalid_request_error", param="prompt")
    if body.get("n") not in (None, 1) or body.get("best_of") not in (None, 1):
        raise ApiError(400, "only n = 1 is supported", "invalid_request_error", param="n")
    if api == "groq":
        for name in GROQ_REFUSES:
            if body.get(name):
                raise ApiError(400, f"property '{name}' is unsupported", "invalid_request_error", param=name)
    extra = mapping(mapping(body.get("nvext")).get("extra_fields"), list)
    return RequestBody(
        api=api,
        prompt_tokens=len(words),
        output_tokens=_limit(api, body, len(words), context),
        stream=body.get("stream") is True,
        usage=mapping(body.get("stream_options")).get("include_usage") is True,
        words=tuple(words),
        timing="timing" in extra,
        workers="worker_id" in extra,
        fields={name: value for name, value in body.items() if name not in ("messages", "prompt")},
    )


def _object(raw: bytes) -> Json:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"JSON decode error: {error}", "invalid_request_error", "json_invalid") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", "invalid_request_error")
    return body


def mapping(value: Any, kind: type = dict) -> Any:
    return value if isinstance(value, kind) else kind()


def _chat_words(body: Json) -> list[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "'messages' must be a list of messages", "invalid_request_error", param="messages")
    words: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                words += text.split()
    return words


def _completion_words(body: Json) -> list[Any]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.split()
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return prompt
    raise ApiError(400, "'prompt' must be one text or one list of token ids", "invalid_request_error", param="prompt")


def _limit(api: str, body: Json, prompt: int, context: int) -> int:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    output = body.get(name)
    if output is None:
        default = COMPLETIONS_DEFAULT if api == "completions" else CHAT_DEFAULT
        output = max(1, min(default, context - prompt))
    if type(output) is not int or output < 1:
        raise ApiError(400, f"{name} must be at least 1, got {output!r:.40}", "invalid_request_error", param=name)
    if prompt + output > context:
        raise _too_long(api, prompt, output, context)
    return output


def _too_long(api: str, prompt: int, output: int, context: int) -> ApiError:
    if api == "groq":
        message = "Please reduce the length of the messages or completion."
        return ApiError(400, message, "invalid_request_error", "context_length_exceeded", "messages")
    message = (
        f"This model's maximum context length is {context} tokens. However, you requested {prompt + output} tokens "
        f"({prompt} in the messages, {output} in the completion). "
        "Please reduce the length of the messages or completion."
    )
    return ApiError(400, message, "BadRequestError", 400)


def _unknown_model(api: str, model: str) -> ApiError:
    if api == "groq":
        message = f"The model `{model}` does not exist or you do not have access to it."
        return ApiError(404, message, "invalid_request_error", "model_not_found")
    return ApiError(404, f"The model `{model}` does not exist.", "NotFoundError", 404, "model")
