"""The bytes of an answer: server-sent events in chunked framing, or one JSON object. Pure.

The path of a token must cost next to nothing, so a stream's token chunks are made once, when it begins: a cycle of
framed events that differ in their word alone.
"""

from __future__ import annotations

import orjson

from .request_body import Json

# Written over and over, in this order; as many as a power of two.
WORDS = (
    *("the", "model", "answers", "with", "plain", "words", "so", "that"),
    *("each", "of", "them", "is", "one", "token", "and", "counts"),
)
DONE = b"data: [DONE]\n\n"


def text(first: int, count: int) -> str:
    """Words `first` .. `first + count - 1` of any answer, each behind a space but for the very first."""
    words = " ".join(WORDS[index % len(WORDS)] for index in range(first, first + count))
    return f" {words}" if first else words


def framed(payload: bytes) -> bytes:
    """One HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(data: Json) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)


class Format:
    """One answer of the chat API (Groq's too) or the completions API."""

    __slots__ = ("_base", "_whole", "chat", "groq", "id")

    def __init__(self, api: str, id: str, model: str, created: int) -> None:
        self.chat, self.groq, self.id = api != "completions", api == "groq", id
        kind = "chat.completion" if self.chat else "text_completion"
        self._whole = {"id": id, "object": kind, "created": created, "model": model}
        self._base = {**self._whole, "object": "chat.completion.chunk" if self.chat else kind}

    def opening(self) -> bytes:
        """The role-only chunk that chats begin with; it carries no token."""
        if not self.chat:
            return b""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        head: Json = {**self._base, "choices": [choice]}
        if self.groq:
            head["x_groq"] = {"id": self.id}
        return event(head)

    def _choice(self, words: str) -> Json:
        content: Json = {"delta": {"content": words}} if self.chat else {"text": words}
        return {"index": 0, **content, "logprobs": None, "finish_reason": None}

    def tokens(self, words: str) -> bytes:
        return event({**self._base, "choices": [self._choice(words)]})

    def cycle(self) -> list[bytes]:
        """Framed events of one token each, for tokens 0, 1, 2, ... modulo their number; all with the leading space."""
        before, after = self.tokens("\x00").split(b"\\u0000")
        size = len(before) + len(after) + 1
        return [b"%x\r\n%b %b%b\r\n" % (size + len(word), before, word, after) for word in (w.encode() for w in WORDS)]

    def closing(self, usage: Json | None, extra: Json, finish_reason: str = "length") -> bytes:
        """Finish chunk (with `extra`: x_groq, nvext), usage chunk unless None, [DONE]."""
        choice: Json = {"index": 0, **({"delta": {}} if self.chat else {"text": ""})}
        choice |= {"logprobs": None, "finish_reason": finish_reason}
        end = event({**self._base, "choices": [choice], **extra})
        if usage is not None:
            end += event({**self._base, "choices": [], "usage": usage})
        return end + DONE

    def whole(self, words: str, usage: Json, extra: Json, more: Json) -> bytes:
        """The answer to a request that is not streamed, with `extra` beside its choice and `more` in it."""
        choice: Json = {"index": 0, "logprobs": None, "finish_reason": "length", **more}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": words}
        else:
            choice["text"] = words
        return orjson.dumps({**self._whole, "choices": [choice], "usage": usage, **extra})


def usage(prompt: int, output: int, cached: int, times: dict[str, float] | None = None) -> Json:
    counts = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return {**counts, "prompt_tokens_details": {"cached_tokens": cached}, **(times or {})}
