"""Evidence of each round: is it still the same model that answers?

Before each round's load, and never beside it, each target gets the same QUESTIONS fixed prompts at temperature 0, and a
digest of each answer's text is kept. Answers that change from round to round say that the model behind the name, or
the way it is served, may have changed. Some servers give other answers by themselves; before the first round each
prompt is therefore asked a second time, and `reports.analysis.evidence` calls a round changed only beyond that.

Vendors count them with the load's: where their limits, as far as they are known, can't admit the worst minute of the
round's load and them together, the load waits for REST_S, until they are out of that minute.

The digests are keyed (BLAKE2b) with a random key that is never written: nobody can find out from them what a model
said, and they can be compared inside one bake-off only.

The rest of a round's evidence needs no requests of its own. The rows have the server's request ids, model, fingerprint,
tier, region and cached tokens; metrics.jsonl has the network's round trip before, during and after (targets/scraper.py:
the kernel's own time of a handshake; a busy connection's TCP_INFO would have the server's delayed acknowledgements in
it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes

import gevent

from reports.store.run_json import AnswerFacts
from targets.asking import Answer, amount, ask_all, limits_of
from targets.quota import KINDS
from targets.target import Target
from traces.words import words

from . import plan as plans
from .forecast import Extra
from .quotas import Limits, Round, fits

QUESTIONS = 20
TASK = "Go on with this text, word after word, without any comment:"
WORDS = 24  # of each, behind the task
PROMPT_TOKENS = 36  # of each, about
OUTPUT_TOKENS = 16  # of each at most
SEED = b"phaseload evidence %d"
DIGITS = 8  # bytes of a digest
REST_S = 60.0


def extra(rounds: int) -> Extra:
    """What each target is asked in so many rounds, the second asking before the first one with it."""
    asked = QUESTIONS * (rounds + 1)
    return Extra(asked, asked * PROMPT_TOKENS, asked * OUTPUT_TOKENS)


def prompts() -> list[str]:
    """The fixed prompts, the same in every bake-off. A chat model comments on a text that makes no sense, and comments
    are much alike, unless it is told to go on with it."""
    return [f"{TASK} {words(SEED % number, WORDS)}" for number in range(QUESTIONS)]


def must_rest(planned: Round, limits: Limits) -> bool:
    """Can a minute's limit not admit the load together with the prompts that were just asked, twice at most?"""
    minutes = (fit for fit in fits([planned], limits) if fit.limit.period == "minute")
    asked = {kind: 2 * QUESTIONS * amount(kind, PROMPT_TOKENS, OUTPUT_TOKENS) for kind in KINDS}
    return any(fit.needed + asked[fit.limit.kind] > fit.limit.most for fit in minutes)


class Witness:
    """Asks the targets of one bake-off before each of its rounds."""

    def __init__(self) -> None:
        self._key = token_bytes(16)
        self._first: dict[str, tuple[str, ...]] = {}
        self._again: dict[str, tuple[str, ...]] = {}

    def ask(self, folder: Path) -> None:
        """Asks each target of the run that is planned in `folder`, which is about to be recorded: the answers' digests
        go into its plan, and from there into its run.json."""
        plan = plans.load(folder)
        asked = self._asked(plan.targets)
        plans.put(replace(plan, evidence=self._facts(plan.targets, asked)), folder)
        traces = {arm.file: plans.unpack(folder / arm.file) for step in plan.steps for arm in step.arms}
        if must_rest((plan, traces), {target.name: limits_of(target, asked[target.name]) for target in plan.targets}):
            gevent.sleep(REST_S)

    def of(self, targets: Sequence[Target]) -> tuple[AnswerFacts, ...]:
        """What the targets answer now. Each prompt is asked twice until a target has answered once."""
        return self._facts(targets, self._asked(targets))

    def _facts(self, targets: Sequence[Target], asked: Mapping[str, Sequence[Answer]]) -> tuple[AnswerFacts, ...]:
        new = [target for target in targets if not any(self._first.get(target.name, ()))]
        self._first |= {target.name: self._digests(asked[target.name]) for target in new}
        self._again |= {name: self._digests(answers) for name, answers in self._asked(new).items()}
        return tuple(
            AnswerFacts(
                target=name, answers=self._digests(answers), first=self._first[name], again=self._again[name],
                failure=next((str(answer.exchange.outcome) for answer in answers if answer.text is None), ""),
            )
            for name, answers in asked.items()
        )  # fmt: skip

    @staticmethod
    def _asked(targets: Sequence[Target]) -> Mapping[str, Sequence[Answer]]:
        names = [target.name for target in targets]
        return dict(zip(names, ask_all(targets, prompts(), OUTPUT_TOKENS), strict=True))

    def _digests(self, answers: Sequence[Answer]) -> tuple[str, ...]:
        """In the prompts' order; "" for a prompt without an answer."""
        digests = [self._digest(answer.text) for answer in answers]
        return (*digests, *[""] * (QUESTIONS - len(digests)))

    def _digest(self, text: str | None) -> str:
        if text is None:
            return ""
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=DIGITS).hexdigest()
