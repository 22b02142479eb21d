"""Text of an exact token count, for a user who gives the model's `tokenizer.json` (needs the `tokenizers` package).

Text comes by the word or the character, so it is fitted: it is cut where the count is reached or nearly so, and what is
then missing is filled with words that are one token. Counts are of text that follows a space; what a text's own first
word differs by, `fit` corrects at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .words import COMMON, words

ROUNDS = 12
DOUBLINGS = 5  # of the text asked for, where its tokens are long (runs of white space)
NEAR = 0.02  # of the length: so much may be filled with single words
WORD = 16  # characters: text is cut between words where one begins so near, else (Chinese, base64) inside


def counter(path: str) -> Callable[[str], int]:
    """Tokens of a text under a tokenizer.json, special tokens left out."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("needs the tokenizers package", where=path, remedy="pip install tokenizers") from None
    if not Path(path).is_file():
        raise InputError("no such file", where=path, remedy="give the model's tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(path)
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
