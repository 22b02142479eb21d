"""`Prompts`: the words of each request of a trace, in text or token ids, at the trace's length, prefixes shared.

Theory of operation. A prompt is a run of segments, each drawn from a key of its own:
- its prefix blocks, keyed by block id: requests that share a block share its bytes, which is all that a prefix cache
  sees. The last block is cut where the prompt ends (Mooncake counts a started block as a block);
- the rest, keyed by the request's index. It ends in an instruction to write at length, for endpoints that can't be
  made to go on beyond a short answer; a rest too short to hold it twice goes without. No shared block has it, and
  every message of a chat's user has it as it was sent.
Keys are BLAKE2b of seed and salt, so a text is the same in every process and on every machine, and recurs under no
other salt. Where a trace has sessions but no blocks, a later turn carries its parents' messages and answers as
`history`.

Words come from `traces.words`, or from a corpus of the user's. With a corpus, too, what the trace doesn't share begins
differently, but for the salt "": then its texts are sent as they are. How exact lengths are: docs/traces.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from .trace import Request, Trace
from .words import Corpus, Fitted, counter, words

ENDING = "Write a very long and detailed answer to this."
REACH = 6  # characters of a corpus that are counted for a token of the length
CACHED_WORDS = 4_000_000  # of shared blocks' text: about 20 MB


class Prompts:
    """Prompts of `trace`'s requests. `salt` is by run, round, load step and target; "" for none. With `tokenizer`, the
    path of a tokenizer.json, lengths are exact in its tokens. `corpus`: where the words come from."""

    def __init__(
        self, trace: Trace, *, seed: int = 0, salt: str = "", tokenizer: str | None = None, corpus: Corpus | None = None
    ) -> None:
        named = bool(salt)
        self._words: Callable[[bytes, int], str] = words if corpus is None else partial(corpus.words, named=named)
        self._fitted = None
        self._ending = len(ENDING.split())
        if tokenizer is not None:
            reach = words if corpus is None else lambda key, tokens: corpus.characters(key, REACH * tokens, named=named)
            self._fitted = Fitted(counter(tokenizer), reach)
            self._words, self._ending = self._fitted.words, self._fitted.count(" " + ENDING)
        self._key = hashlib.blake2b(salt.encode(), key=b"phaseload prompts %d" % seed, digest_size=16).digest()
        self._blocks = trace.block_tokens
        self._rows: dict[int, tuple[int, int, int]] = {}  # parent, prompt, output by index, where turns carry history
        if trace.has("parent") and not trace.has("prefix"):
            columns = (trace.column(name).tolist() for name in ("parent", "prompt_tokens", "output_tokens"))
            self._rows = dict(zip(trace.column("index").tolist(), zip(*columns, strict=True), strict=True))
        largest = self._blocks if isinstance(self._blocks, int) else max(self._blocks.values(), default=0)
        self._whole_block = lru_cache(maxsize=max(64, CACHED_WORDS // (largest or 1)))(self._start_of_block)

    def text(self, request: Request) -> str:
        """The request's own message: the whole prompt, less what `history` gives."""
        before = sum(own + answer for _, own, answer in self._turns(request))
        shared = self._shared(request)
        own = request.prompt_tokens - before - sum(count for _, count in shared)
        return self._message(request.index, own, shared)

    def history(self, request: Request) -> tuple[tuple[str, str], ...]:
        """A later turn's earlier messages as (role, text), oldest first; with `text` they make `prompt_tokens`.
        Empty where the trace has prefix blocks, which hold the history already."""
        messages = []
        for index, own, answer in self._turns(request):
            messages.append(("user", self._message(index, own)))
            if answer:
                messages.append(("assistant", self._words(self._named(b"answer", index), answer)))
        return tuple(messages)

    def ids(self, request: Request, vocabulary: int) -> list[int]:
        """The whole prompt as `prompt_tokens` ids below `vocabulary`, clear of both ends, where special tokens live."""
        low, span = vocabulary // 10, max(1, vocabulary * 8 // 10)
        segments = [(self._named(b"block", block), count) for block, count in self._shared(request)]
        for index, own, answer in self._turns(request):
            segments += [(self._named(b"request", index), own), (self._named(b"answer", index), answer)]
        rest = request.prompt_tokens - sum(count for _, count in segments)
        segments.append((self._named(b"request", request.index), rest))
        drawn = b"".join(hashlib.shake_128(key).digest(4 * count) for key, count in segments)
        ids: list[int] = (np.frombuffer(drawn, "<u4") % span + low).tolist()
        return ids

    def _message(self, index: int, own: int, shared: Sequence[tuple[int, int]] = ()) -> str:
        """A user's message: shared blocks, then `own` tokens, which end in the instruction where they can hold it."""
        ending = ENDING if own >= 2 * self._ending else ""
        parts = [self._block(block, count) for block, count in shared]
        if own:
            parts.append(self._words(self._named(b"request", index), own - self._ending * bool(ending)))
        if self._fitted:
            return self._fitted.fit(parts, own + sum(count for _, count in shared), ending)
        return " ".join([*parts, ending] if ending else parts)

    def _shared(self, request: Request) -> list[tuple[int, int]]:
        """(block id, tokens of it) for each prefix block, cut to the prompt's length."""
        left, shared = request.prompt_tokens, []
        for block in request.prefix:
            size = min(left, self._blocks if isinstance(self._blocks, int) else self._blocks.get(block, 0))
            if size <= 0:
                break
            shared.append((block, size))
            left -= size
        return shared

    def _turns(self, request: Request) -> list[tuple[int, int, int]]:
        """(index, own words, answer's words) of each earlier turn, oldest first, as much as fits: at least one word
        stays for the request itself."""
        line: list[int] = []
        parent = request.parent
        while parent in self._rows and len(line) < len(self._rows):
            line.append(parent)
            parent = self._rows[parent][0]
        turns, before = [], 0
        for index in reversed(line):
            _, prompt, output = self._rows[index]
            own = max(1, prompt - before)
            if before + own >= request.prompt_tokens:
                break
            answer = min(output, request.prompt_tokens - before - own - 1)
            turns.append((index, own, answer))
            before += own + answer
        return turns

    def _block(self, block: int, count: int) -> str:
        size = self._blocks if isinstance(self._blocks, int) else self._blocks[block]
        write = self._whole_block if count == size else self._start_of_block
        return write(block, count)

    def _start_of_block(self, block: int, count: int) -> str:
        return self._words(self._named(b"block", block), count)

    def _named(self, kind: bytes, number: int) -> bytes:
        return b"%b/%b/%d" % (self._key, kind, number)
