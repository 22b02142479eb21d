"""`Prompts`: what each request of a trace says, in text or token ids, at the trace's length, prefixes shared.

Theory of operation. A prompt is a run of segments, each drawn from a key of its own:
- its prefix blocks, keyed by block id: requests that share a block share its bytes, which is all that a prefix cache
  sees. The last block is cut where the prompt ends (Mooncake counts a started block as a block);
- the rest, keyed by the request's index.
Keys are BLAKE2b of seed and salt, so a text is the same in every process and on every machine, and recurs under no
other salt. Where a trace has sessions but no blocks, a later turn carries its parents' messages and answers as
`history`.

Lengths: exact in whitespace-delimited words, which simulated endpoints count; exact as token ids; exact in tokens
with a `tokenizer.json`; otherwise about 3 % above for a large BPE vocabulary (`traces.wording`).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from .request import Request
from .tokenizer import Fitted, counter
from .trace import Trace
from .wording import words

CACHED_WORDS = 4_000_000  # of shared blocks' text: about 20 MB


class Prompts:
    """Prompts of `trace`'s requests. `salt` is by run, round, load step and target; "" for none. With `tokenizer`, the
    path of a tokenizer.json, lengths are exact in its tokens."""

    def __init__(self, trace: Trace, *, seed: int = 0, salt: str = "", tokenizer: str | None = None) -> None:
        self._fitted = Fitted(counter(tokenizer)) if tokenizer else None
        self._words = self._fitted.words if self._fitted else words
        self._key = hashlib.blake2b(salt.encode(), key=b"phaseload prompts %d" % seed, digest_size=16).digest()
        self._blocks = trace.block_tokens
        self._family = None if trace.has_prefixes else _Family.of(trace)
        largest = self._blocks if isinstance(self._blocks, int) else max(self._blocks.values(), default=0)
        self._block_text = lru_cache(maxsize=max(64, CACHED_WORDS // (largest or 1)))(self._block_text_uncached)

    def text(self, request: Request) -> str:
        """The request's own message: the whole prompt, less what `history` gives."""
        said = sum(own + answer for _, own, answer in self._turns(request))
        parts = [self._block(block, count) for block, count in self._shared(request)]
        rest = request.prompt_tokens - said - sum(count for _, count in self._shared(request))
        if rest:
            parts.append(self._words(self._named(b"request", request.index), rest))
        return self._fitted.fit(parts, request.prompt_tokens - said) if self._fitted else " ".join(parts)

    def history(self, request: Request) -> tuple[tuple[str, str], ...]:
        """A later turn's earlier messages as (role, text), oldest first; with `text` they make `prompt_tokens`.
        Empty where the trace has prefix blocks, which hold the history already."""
        messages = []
        for index, own, answer in self._turns(request):
            messages.append(("user", self._words(self._named(b"request", index), own)))
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
        """(index, own words, answer's words) of each earlier turn, oldest first."""
        return self._family.turns(request) if self._family and request.parent >= 0 else []

    def _block(self, block: int, count: int) -> str:
        size = self._blocks if isinstance(self._blocks, int) else self._blocks[block]
        return self._block_text(block, size) if count == size else self._words(self._named(b"block", block), count)

    def _block_text_uncached(self, block: int, size: int) -> str:
        return self._words(self._named(b"block", block), size)

    def _named(self, kind: bytes, number: int) -> bytes:
        return b"%b/%b/%d" % (self._key, kind, number)


class _Family:
    """Parents and lengths by index, for traces whose turns carry their history."""

    def __init__(self, trace: Trace) -> None:
        names = ("index", "parent", "prompt_tokens", "output_tokens")
        columns = (trace.column(name).tolist() for name in names)
        self._rows = {index: (parent, prompt, output) for index, parent, prompt, output in zip(*columns, strict=True)}

    @classmethod
    def of(cls, trace: Trace) -> _Family | None:
        return cls(trace) if "parent" in trace.table.column_names else None

    def turns(self, request: Request) -> list[tuple[int, int, int]]:
        """Each ancestor's own message and answer, as much as fits: at least one word stays for the request itself."""
        line: list[int] = []
        parent = request.parent
        while parent in self._rows and len(line) < len(self._rows):
            line.append(parent)
            parent = self._rows[parent][0]
        turns, said = [], 0
        for index in reversed(line):
            _, prompt, output = self._rows[index]
            own = max(1, prompt - said)
            if said + own >= request.prompt_tokens:
                break
            answer = min(output, request.prompt_tokens - said - own - 1)
            turns.append((index, own, answer))
            said += own + answer
        return turns
