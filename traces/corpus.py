"""`Corpus`: a user's own texts (`--prompts corpus.jsonl`) as the words of prompts.

Each line is a JSON string, or an object with `prompt`, `text` or `messages`; of messages, the user's last is taken
(several in a row are joined). The trace still determines how long a prompt is and what it shares.

Theory of operation. A passage, which is a shared block or a request's own part, starts at the beginning of the text
that its key draws and goes on with the texts after it, from the last to the first again, until it is long enough;
white space inside a text stays. Before it stands one word made from its key. A corpus is finite, so without that word
requests that draw the same text would begin alike, and a prefix cache would hit where the trace shares nothing. It
has 40 bits: where two passages collide, they must draw the same text as well to share more than that word.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from .errors import InputError
from .files import Source

LARGEST = 256_000_000  # characters of all texts: what one process holds, 1 byte each, 4 at most beyond Latin-1
LONGEST_WORD = 30  # characters of the mean word beyond which words measure nothing (Chinese, base64)
EXPECTED = "expected a JSON string, or an object with prompt, text or messages"


@dataclass(frozen=True)
class CorpusFacts:
    """A corpus as plan.json and run.json have it: its file, and what that held."""

    source: str
    fingerprint: str
    texts: int
    words: int


class Corpus:
    """Texts in their order. `fingerprint`: 32 hex digits, equal for equal texts on every machine."""

    def __init__(self, texts: list[str], where: str = "corpus") -> None:
        if not texts:
            raise InputError("holds no text", where=where, remedy="one JSON string or object a line")
        digest = hashlib.blake2b(digest_size=16)
        for text in texts:
            digest.update(orjson.dumps(text) + b"\n")
        self.where, self.fingerprint = where, digest.hexdigest()
        self._texts = texts
        self._sizes, self._lengths = [len(text.split()) for text in texts], [len(text) for text in texts]

    def facts(self) -> CorpusFacts:
        return CorpusFacts(self.where, self.fingerprint, len(self._texts), sum(self._sizes))

    def words(self, key: bytes, count: int, *, named: bool = True) -> str:
        """`count` whitespace-delimited words; a shorter passage of the same key is the beginning of a longer one.
        `named`: the first word is made from the key."""
        return self._passage(key, count - named, self._sizes, _head, named and count > 0)

    def characters(self, key: bytes, count: int, *, named: bool = True) -> str:
        """The same passage by the character: `count` of them after the first word."""
        return self._passage(key, count, self._lengths, lambda text, left: text[:left], named)

    def _passage(self, key: bytes, left: int, sizes: list[int], head: Callable[[str, int], str], named: bool) -> str:
        """Texts of `sizes` until `left` is reached, the last one cut by `head`, after the word made from the key."""
        drawn = hashlib.shake_128(key).digest(13)
        number, parts = int.from_bytes(drawn[:8], "little"), []
        while left > 0:
            text, size = self._texts[number % len(self._texts)], sizes[number % len(self._texts)]
            parts.append(text if size <= left else head(text, left))
            left, number = left - size, number + 1
        name, body = b32encode(drawn[8:]).decode().lower() if named else "", "\n\n".join(parts)
        return f"{name} {body}" if name and body else name or body

    def check_words(self) -> None:
        """Refuses texts whose words are no measure of length."""
        mean = sum(self._lengths) / sum(self._sizes)
        if mean > LONGEST_WORD:
            raise InputError(
                f"its words have {mean:.0f} characters on average, so words can't measure prompts",
                where=self.where,
                remedy="give the model's tokenizer.json: --tokenizer",
            )


def read(path: str) -> Corpus:
    """The corpus of a JSONL file, plain, gzip or zstd. Raises InputError: file, line, what was expected."""
    texts, left = [], LARGEST
    for number, line in Source(path, Path(path)).lines():
        text = _text(line, path, number)
        left -= len(text)
        if left < 0:
            problem = f"more than {LARGEST:,} characters"
            raise InputError(problem, where=path, line=number, remedy="give fewer of its lines")
        texts.append(text)
    return Corpus(texts, path)


def expected(facts: CorpusFacts) -> Corpus:
    """The corpus that a plan names by its facts, from this machine's own file, which must hold the same texts."""
    path = facts.source
    if not Path(path).is_file():
        message = "the prompts' corpus isn't on this worker's machine"
        raise InputError(message, where=path, remedy="copy it to the same path")
    corpus = read(path)
    if corpus.fingerprint != facts.fingerprint:
        raise InputError("holds other texts than the master's", where=path, remedy="copy the master's file")
    return corpus


def _text(line: bytes, where: str, number: int) -> str:
    try:
        row = orjson.loads(line)
    except ValueError as problem:
        raise InputError(f"not JSON ({problem}); {EXPECTED}", where=where, line=number, remedy="mend it") from None
    if (text := _of_row(row)) is None:
        raise InputError(EXPECTED, where=where, line=number, remedy="mend or delete the line")
    if not (text := text.strip()):
        raise InputError("an empty text", where=where, line=number, remedy="delete the line")
    return text


def _of_row(row: Any) -> str | None:
    if not isinstance(row, dict):
        return row if isinstance(row, str) else None
    for name in ("prompt", "text"):
        if isinstance(row.get(name), str):
            return str(row[name])
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    turns = [list(turn) for role, turn in groupby(messages, lambda message: message.get("role")) if role == "user"]
    return "\n\n".join(piece for message in turns[-1] for piece in _pieces(message.get("content"))) if turns else None


def _pieces(content: Any) -> Iterator[str]:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _head(text: str, count: int) -> str:
    """The text's first `count` words, of more."""
    return text[: len(text) - len(text.split(None, count)[count])].rstrip()
