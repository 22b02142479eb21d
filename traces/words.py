"""The words of prompts: English-looking ones, `words(key, count)`, or a user's own texts, a `Corpus`. For a user who
gives the model's `tokenizer.json` (which needs the `tokenizers` package), `Fitted` makes either as long in tokens.

Theory of operation. Simulated endpoints count whitespace-delimited words, real ones the tokens of a BPE vocabulary,
and a prompt must have the trace's length for both. So every word here is a short common one, which with its leading
space is one token of every large vocabulary; the full stop that ends each sentence of 32 words is the one extra
token, so a real count lies about 3 % above the word count (docs/traces.md has the measured figures).

A text is a few random words, which make it unlike every other from its first block on (prefix caches compare from
the start), then whole sentences from a table of 1,024. All is chosen by bytes of SHAKE-128 over the key, whose
output can be extended, so that a shorter text with the same key is the beginning of a longer one. Choosing by the
sentence and not by the word is what makes 2,000 words cost about 10 us.

A passage of a corpus, which is a shared block or a request's own part, starts at the beginning of the text that its key
draws and goes on with the texts after it, from the last to the first again, until it is long enough. Before it stands
one word made from its key (docs/traces.md says why) of 40 bits: where two passages collide, they must draw the same
text as well to share more than that word.

Text comes by the word or the character, so for a count of tokens it is fitted: it is cut where the count is reached or
nearly so, and what is then missing is filled with words that are one token. Counts are of text that follows a space;
what a text's own first word differs by, `Fitted.fit` corrects at its end.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b32encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from glob import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from .errors import InputError
from .files import Source

SENTENCE = 32  # words, the last with a full stop
SENTENCES = 1024
OPENING = 8  # random words at the start: 2**64 openings
ROUNDS = 12
DOUBLINGS = 5  # of the text asked for, where its tokens are long (runs of white space)
NEAR = 0.02  # of the length: so much may be filled with single words
WORD = 16  # characters: text is cut between words where one begins so near, else (Chinese, base64) inside
LARGEST_CORPUS = 256_000_000  # characters of all texts: what one process holds, 1 byte each, 4 at most beyond Latin-1
LONGEST_WORD = 30  # characters of a corpus's mean word, beyond which words measure nothing (Chinese, base64)
EXPECTED = "expected a JSON string, or an object with prompt, text or messages"

LEXICON = """
determiners: the a this that each every another some one any their our his her its my
adjectives: new old small large good bad long short early late young great high low own main local public common
    simple strong free full clear ready real whole open final hard dark light cold warm quick slow quiet kind fine
    rich poor deep wide heavy fair near green red blue white black
nouns: time year way day man woman child world school state family student group country problem hand part place
    case week company system program question work night point home water room mother area money story fact month
    book eye job word business issue side head house service friend father power hour game line end member law car
    city name team minute idea body back parent face level office door health person art war history party result
    change morning reason research girl boy food teacher force education paper market plan report road table letter
    bank river garden
verbs: has made found gave told asked called tried left kept saw took knew wanted used put brought began showed
    heard played moved lived held wrote provided sat lost paid met included set learned changed led understood
    watched followed stopped created spoke read allowed added spent opened walked won offered remembered considered
    bought served sent expected built stayed reached carried raised passed sold required reported decided pulled
prepositions: in on at by for with about after before under over near from into through during without against
links: and but while because although when where since until so if as or though
adverbs: often always never also still again soon then now here there once almost really very quite just only
"""
DETERMINERS, ADJECTIVES, NOUNS, VERBS, PREPOSITIONS, LINKS, ADVERBS = (
    entry.split()[1:] for entry in re.split(r"\n(?! )", LEXICON.strip())
)

# Clauses of eight words; a sentence is four of them, the later ones linked.
OPENERS = (
    (DETERMINERS, ADJECTIVES, NOUNS, VERBS, DETERMINERS, NOUNS, PREPOSITIONS, NOUNS),
    (DETERMINERS, NOUNS, ADVERBS, VERBS, DETERMINERS, ADJECTIVES, ADJECTIVES, NOUNS),
    (PREPOSITIONS, DETERMINERS, NOUNS, DETERMINERS, NOUNS, VERBS, DETERMINERS, NOUNS),
    (ADVERBS, DETERMINERS, NOUNS, VERBS, DETERMINERS, ADJECTIVES, NOUNS, ADVERBS),
)
LINKED = (
    (LINKS, DETERMINERS, NOUNS, VERBS, DETERMINERS, NOUNS, PREPOSITIONS, NOUNS),
    (LINKS, DETERMINERS, ADJECTIVES, NOUNS, ADVERBS, VERBS, DETERMINERS, NOUNS),
    (LINKS, DETERMINERS, NOUNS, PREPOSITIONS, DETERMINERS, NOUNS, VERBS, NOUNS),
)
COMMON = sorted({*ADJECTIVES, *NOUNS, *VERBS, *PREPOSITIONS, *LINKS, *ADVERBS})[:256]


def words(key: bytes, count: int) -> str:
    """`count` words between single spaces; equal keys give equal beginnings, and equal texts on every machine."""
    stream = hashlib.shake_128(key).digest(OPENING + 2 * (max(0, count - OPENING) // SENTENCE + 1))
    opening = [COMMON[byte] for byte in stream[: min(OPENING, count)]]
    opening[:1] = [word.capitalize() for word in opening[:1]]
    whole, rest = divmod(max(0, count - OPENING), SENTENCE)
    chosen = (np.frombuffer(stream, "<u2", whole + 1, OPENING) % SENTENCES).tolist()
    table = _sentences()
    parts = [" ".join(opening), *[table[number] for number in chosen[:whole]]] if count else []
    if rest:
        parts.append(" ".join(table[chosen[whole]].split(" ")[:rest]))
    return " ".join(parts)


@cache
def _sentences() -> list[str]:
    return [_sentence(hashlib.shake_128(b"sentence %d" % number).digest(SENTENCE + 4)) for number in range(SENTENCES)]


def _sentence(stream: bytes) -> str:
    chosen = []
    for clause in range(4):
        patterns = LINKED if clause else OPENERS
        pattern = patterns[stream[SENTENCE + clause] % len(patterns)]
        part = stream[8 * clause : 8 * clause + 8]
        chosen += [kind[byte % len(kind)] for kind, byte in zip(pattern, part, strict=True)]
    return " ".join(chosen).capitalize() + "."


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

    @classmethod
    def read(cls, path: str) -> Corpus:
        """The corpus of a JSONL file (docs/traces.md), plain, gzip or zstd. Of messages, the user's last is taken
        (several in a row are joined). Raises InputError."""
        texts, left = [], LARGEST_CORPUS
        for number, line in Source(path, Path(path)).lines():
            text = _text(line, path, number)
            left -= len(text)
            if left < 0:
                problem = f"more than {LARGEST_CORPUS:,} characters"
                raise InputError(problem, where=path, line=number, remedy="give fewer of its lines")
            texts.append(text)
        return cls(texts, path)

    @classmethod
    def expected(cls, facts: CorpusFacts) -> Corpus:
        """The corpus that a plan names by its facts, from this machine's own file, which must hold the same texts."""
        path = facts.source
        if not Path(path).is_file():
            message = "the prompts' corpus isn't on this worker's machine"
            raise InputError(message, where=path, remedy="copy it to the same path")
        corpus = cls.read(path)
        if corpus.fingerprint != facts.fingerprint:
            raise InputError("holds other texts than the master's", where=path, remedy="copy the master's file")
        return corpus

    def facts(self) -> CorpusFacts:
        return CorpusFacts(self.where, self.fingerprint, len(self._texts), sum(self._sizes))

    def words(self, key: bytes, count: int, *, named: bool = True) -> str:
        """`count` whitespace-delimited words; a shorter passage of the same key is the beginning of a longer one.
        `named`: the first word is made from the key."""
        first = lambda text, left: text[: len(text) - len(text.split(None, left)[left])].rstrip()  # noqa: E731
        return self._passage(key, count - named, self._sizes, first, named and count > 0)

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
            problem = f"its words have {mean:.0f} characters on average, so words can't measure prompts"
            raise InputError(problem, where=self.where, remedy="give the model's tokenizer.json: --tokenizer")


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


def counter(path: str) -> Callable[[str], int]:
    """Tokens of a text, special tokens left out. `path`: a tokenizer.json, a folder that has one, or a model in
    Hugging Face's local cache."""
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"), "hub")
    cached = hub.glob(f"models--{escape(path.replace('/', '--'))}/snapshots/*/tokenizer.json")
    file = next((file for file in (Path(path), Path(path, "tokenizer.json"), *cached) if file.is_file()), None)
    if file is None:
        raise InputError("no such file, folder or cached model", where=path, remedy="give the model's tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        remedy = "pip install 'phaseload[tokenizer]'"
        raise InputError("needs the tokenizers package", where=path, remedy=remedy) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"not a tokenizer.json: {str(error)[:80]}", where=path) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


class Fitted:
    """Text counted in tokens. `source(key, tokens)` gives text of about `tokens` tokens or more; the more it is asked
    for, the longer, with the same beginning."""

    def __init__(self, count: Callable[[str], int], source: Callable[[bytes, int], str] = words) -> None:
        self.count, self._source = count, source
        self._fillers = [word for word in COMMON if count(" " + word) == 1] or ["a"]

    def words(self, key: bytes, tokens: int) -> str:
        """Text of `tokens` tokens where it follows a space; as near as the vocabulary allows."""
        if tokens <= 0:
            return ""
        for doubled in range(DOUBLINGS):
            text = self._source(key, tokens << doubled)
            if (counted := self.count(" " + text)) >= tokens:
                break
        return self._filled(*self._cut(text, counted, tokens))

    def fit(self, parts: list[str], tokens: int, ending: str = "") -> str:
        """The parts joined and then `ending`, made longer or shorter before it until the whole counts `tokens`."""
        text, ending = " ".join(parts), f" {ending}" if ending else ""
        for _ in range(ROUNDS):
            missing = tokens - self.count(text + ending)
            if not missing:
                break
            for _ in range(-missing):
                text = _shortened(text, len(text) - 1)
            text = self._filled(text, missing)
        return text + ending

    def _cut(self, text: str, counted: int, tokens: int) -> tuple[str, int]:
        """The beginning of a text of `counted` tokens that has at most `tokens`, and how many it lacks."""
        if counted <= tokens:
            return text, tokens - counted
        short, lacking = "", tokens  # the longest beginning known to fit
        over, above = text, counted - tokens  # the shortest known not to
        for number in range(ROUNDS):
            lower, upper = (lacking, above) if number < ROUNDS // 3 else (1, 1)  # then halves: the text is uneven
            between = len(short) + (len(over) - len(short)) * lower // (lower + upper)
            tried = _shortened(text, between)
            excess = self.count(" " + tried) - tokens
            if excess > 0:
                over, above = tried, excess
            elif len(tried) <= len(short):
                break
            else:
                short, lacking = tried, -excess
            if lacking <= NEAR * tokens:
                break
        return short, lacking

    def _filled(self, text: str, missing: int) -> str:
        fillers = [self._fillers[number % len(self._fillers)] for number in range(max(0, missing))]
        return " ".join([text, *fillers] if text else fillers)


def _shortened(text: str, length: int) -> str:
    """At most `length` characters of the text, to the end of a word where one is near."""
    if length < len(text) and text[length : length + 1].isspace():
        return text[: max(0, length)].rstrip()
    head = text[: max(0, length)]
    whole = head.rsplit(None, 1)[:1]
    return whole[0] if whole and len(head) - len(whole[0]) <= WORD else head.rstrip()
