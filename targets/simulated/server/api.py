"""The OpenAI and Groq APIs as the server speaks them: the body of a request, parsed and checked, or refused as the
vendor would; and the bytes of an answer, server-sent events in chunked framing, or one JSON object. Pure.

A token is a whitespace-delimited word of the messages' contents, or one id where the prompt is token ids; the chat
template adds none. The simulated model always writes up to the limit, so `ignore_eos` and `min_tokens` are accepted
and change nothing.

The path of a token must cost next to nothing, so a stream's token chunks are made once, when it begins: a cycle of
framed events that differ in their word alone.

What a server does wrong on request, `--fault stall=0.01,reset=0.01,http500=0.01,malformed=0.01,truncate=0.01`: each is
the share of requests that it befalls, drawn by the server's seed. `http500` answers so at once; the others strike a
stream after some of its tokens: `stall` sends no more and keeps the connection, `reset` resets it, `malformed` sends an
event that is no JSON, `truncate` ends the body properly but long before its end. Answers that are not streamed are only
hit by `http500`.

Groq's rate limits: requests a day and tokens a minute, as buckets that refill evenly. Source of the headers' names and
forms: https://console.groq.com/docs/rate-limits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from traces.errors import InputError

Json = dict[str, Any]  # an object that a stranger wrote, or that strangers will read

CHAT_DEFAULT, COMPLETIONS_DEFAULT = 256, 16
GROQ_REFUSES = ("logprobs", "logit_bias", "top_logprobs")
# Written over and over, in this order; as many as a power of two.
WORDS = (
    *("the", "model", "answers", "with", "plain", "words", "so", "that"),
    *("each", "of", "them", "is", "one", "token", "and", "counts"),
)
DONE = b"data: [DONE]\n\n"
FAULTS = ("http500", "malformed", "reset", "stall", "truncate")
DAY, MINUTE = 86_400.0, 60.0


class ApiError(Exception):
    """Answered with `status` and the vendor's error body."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", code: str | int | None = None,
        param: str | None = None, headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


@dataclass(frozen=True, slots=True)
class RequestBody:
    prompt_tokens: int
    output_tokens: int
    stream: bool
    usage: bool  # a usage chunk at the end of the stream
    words: tuple[Any, ...] = ()  # the prompt's tokens
    nvext: Sequence[Any] = ()  # what is asked for: "timing", "worker_id"
    fields: Json = field(default_factory=dict)  # the body but for its prompt


def parse(api: str, raw: bytes, model: str, context: int) -> RequestBody:
    """`context`: most tokens of prompt and answer together. Raises ApiError."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"JSON decode error: {error}", code="json_invalid") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    if body.get("model", model) != model:
        name = str(body["model"])[:200]
        if api == "groq":
            problem = f"The model `{name}` does not exist or you do not have access to it."
            raise ApiError(404, problem, code="model_not_found")
        raise ApiError(404, f"The model `{name}` does not exist.", "NotFoundError", 404, "model")
    words = _completion_words(body) if api == "completions" else _chat_words(body)
    if not words:
        raise ApiError(400, "the prompt is empty", param="prompt")
    if body.get("n") not in (None, 1) or body.get("best_of") not in (None, 1):
        raise ApiError(400, "only n = 1 is supported", param="n")
    if api == "groq":
        for name in GROQ_REFUSES:
            if body.get(name):
                raise ApiError(400, f"property '{name}' is unsupported", param=name)
    return RequestBody(
        prompt_tokens=len(words), output_tokens=_limit(api, body, len(words), context),
        stream=body.get("stream") is True, usage=mapping(body.get("stream_options")).get("include_usage") is True,
        words=tuple(words), nvext=mapping(mapping(body.get("nvext")).get("extra_fields"), list),
        fields={name: value for name, value in body.items() if name not in ("messages", "prompt")},
    )  # fmt: skip


def mapping(value: Any, kind: type = dict) -> Any:
    return value if isinstance(value, kind) else kind()


def _chat_words(body: Json) -> list[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "'messages' must be a list of messages", param="messages")
    words: list[str] = []
    for message in messages:
        content = mapping(message).get("content")
        for part in content if isinstance(content, list) else [{"text": content}]:
            words += mapping(mapping(part).get("text"), str).split()
    return words


def _completion_words(body: Json) -> list[Any]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.split()
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return prompt
    raise ApiError(400, "'prompt' must be one text or one list of token ids", param="prompt")


def _limit(api: str, body: Json, prompt: int, context: int) -> int:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    output = body.get(name)
    if output is None:
        default = COMPLETIONS_DEFAULT if api == "completions" else CHAT_DEFAULT
        output = max(1, min(default, context - prompt))
    if type(output) is not int or output < 1:
        raise ApiError(400, f"{name} must be at least 1, got {output!r:.40}", param=name)
    if prompt + output > context:
        remedy = "Please reduce the length of the messages or completion."
        if api == "groq":
            raise ApiError(400, remedy, code="context_length_exceeded", param="messages")
        problem = (
            f"This model's maximum context length is {context} tokens. However, you requested {prompt + output} tokens "
            f"({prompt} in the messages, {output} in the completion). {remedy}"
        )
        raise ApiError(400, problem, "BadRequestError", 400)
    return output


def text(first: int, count: int) -> str:
    """Words `first` .. `first + count - 1` of any answer, each behind a space but for the very first."""
    words = " ".join(WORDS[index % len(WORDS)] for index in range(first, first + count))
    return f" {words}" if first else words


def framed(payload: bytes) -> bytes:
    """One HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Format:
    """One answer of the chat API (Groq's too) or the completions API."""

    __slots__ = ("_base", "_whole", "chat", "groq", "id")

    def __init__(self, api: str, id: str, model: str, created: int) -> None:
        self.chat, self.groq, self.id = api != "completions", api == "groq", id
        kind = "chat.completion" if self.chat else "text_completion"
        self._whole = {"id": id, "object": kind, "created": created, "model": model}
        self._base = {**self._whole, "object": "chat.completion.chunk" if self.chat else kind}

    def _event(self, *choices: Json, **extra: Any) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({**self._base, "choices": choices, **extra})

    def _choice(self, words: str, finish_reason: str | None = None) -> Json:
        content: Json = {"delta": {"content": words} if words else {}} if self.chat else {"text": words}
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}

    def opening(self) -> bytes:
        """The role-only chunk that chats begin with; it carries no token."""
        if not self.chat:
            return b""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return self._event(choice, **({"x_groq": {"id": self.id}} if self.groq else {}))

    def tokens(self, words: str) -> bytes:
        return self._event(self._choice(words))

    def cycle(self) -> list[bytes]:
        """Framed events of one token each, for tokens 0, 1, 2, ... modulo their number; all with the leading space."""
        before, after = self.tokens("\x00").split(b"\\u0000")
        return [framed(b"%b %b%b" % (before, word.encode(), after)) for word in WORDS]

    def closing(self, usage: Json | None, extra: Json) -> bytes:
        """Finish chunk (with `extra`: x_groq, nvext), usage chunk unless None, [DONE]."""
        end = self._event(self._choice("", "length"), **extra)
        return end + (b"" if usage is None else self._event(usage=usage)) + DONE

    def whole(self, words: str, usage: Json, extra: Json, more: Json) -> bytes:
        """The answer to a request that is not streamed, with `extra` beside its choice and `more` in it."""
        content = {"message": {"role": "assistant", "content": words}} if self.chat else {"text": words}
        choice = {"index": 0, "logprobs": None, "finish_reason": "length", **more, **content}
        return orjson.dumps({**self._whole, "choices": [choice], "usage": usage, **extra})


class Faults:
    """Draws requests' fates by the shares of `--fault`. InputError for unknown kinds, and shares not in 0..1 in all."""

    def __init__(self, text: str, seed: int = 0) -> None:
        self.shares: dict[str, float] = {}
        self._random = random.Random(seed)
        for part in filter(None, text.split(",")):
            kind, _, share = part.partition("=")
            try:
                self.shares[kind.strip()] = float(share)
            except ValueError:
                raise InputError(f"--fault {part}", remedy="KIND=SHARE, as in stall=0.01") from None
        if not set(self.shares) <= set(FAULTS):
            raise InputError(f"--fault {text}", remedy=f"kinds are {', '.join(FAULTS)}")
        if not (all(share >= 0 for share in self.shares.values()) and sum(self.shares.values()) <= 1):
            raise InputError(f"--fault {text}", remedy="shares are at least 0 and at most 1 together")

    def draw(self) -> str | None:
        """The fault of the next request, None for none."""
        point = self._random.random()
        for kind, share in self.shares.items():
            if point < share:
                return kind
            point -= share
        return None

    def strike_after(self, output: int) -> int:
        """Tokens that a stream of `output` sends before its fault."""
        return self._random.randint(0, max(0, output - 1))


@dataclass(slots=True)
class RateBucket:
    """`level` of `size` units at the instant `at`; they refill within `period` seconds."""

    size: float
    period: float
    level: float
    at: float = 0.0

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.size / self.period)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until there are `amount` units."""
        return max(0.0, (amount - self.level) * self.period / self.size)


class RateLimits:
    """`requests` a day and `tokens` a minute; 0 for no limit of that kind."""

    def __init__(self, requests: int = 0, tokens: int = 0) -> None:
        sizes = (("requests", requests, DAY), ("tokens", tokens, MINUTE))
        self.buckets = {name: RateBucket(size, period, size) for name, size, period in sizes if size}

    def take(self, tokens: int, now: float) -> tuple[float, str, dict[str, str]]:
        """Takes one request of `tokens`, if there is room: (seconds to wait, the limit at fault, headers)."""
        amounts = {"requests": 1, "tokens": tokens}
        wait, fault = 0.0, ""
        for name, bucket in self.buckets.items():
            bucket.fill(now)
            if (seconds := bucket.wait(amounts[name])) > wait:
                wait, fault = seconds, name
        headers = {}
        for name, bucket in self.buckets.items():
            if not wait:
                bucket.level -= amounts[name]
            headers[f"x-ratelimit-limit-{name}"] = f"{bucket.size:.0f}"
            headers[f"x-ratelimit-remaining-{name}"] = f"{int(bucket.level)}"
            headers[f"x-ratelimit-reset-{name}"] = duration(bucket.wait(bucket.size))
        if wait:
            headers["retry-after"] = f"{max(1, round(wait))}"
        return wait, fault, headers


def duration(seconds: float) -> str:
    """As Groq writes it: 2m59.56s, 7.66s, 1h2m3s."""
    hours, rest = divmod(round(seconds, 2), 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{text}"
    return f"{minutes:.0f}m{text}" if minutes else text
