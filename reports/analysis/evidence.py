"""Was it the same server in every round? What its answers said of it, and what changed between rounds and inside one.

A name (model, fingerprint, service tier, region) has changed where a round's answers have none of the names of the
round before, or one that no round had before. Servers that mix several all along have changed nothing.

Fixed prompts, asked before each round (`loadgen.evidence`), may be answered differently by a server that is the same:
batching and other hardware change the last bits, and so a word. So each was asked twice in a row before the first
round, and a round's answers have changed only where they differ from the first ones more often than those differ from
each other: the exact sign test (McNemar's) over prompts that differ in one of the two comparisons and not in the other.
If nothing has changed, the three askings of a prompt are exchangeable, and either is as probable. LEVEL is for all
rounds and targets together. A server whose answers all differ by themselves can't be found out, which is said.

The network's round trip matters where TTFT is compared: it has changed where it moved by more than NOTABLE of the
target's own median TTFT, and by more than LEAST_S.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

from .. import number_format
from ..store import seen
from ..store.run_json import AnswerFacts
from ..store.seen import Name, Seen
from . import phases
from .quantiles import finite

if TYPE_CHECKING:
    from ..store.run_folder import Run

LEVEL = 0.05  # of calling any round's answers changed where the server is the same
NOTABLE, LEAST_S = 0.05, 0.001  # of a round trip's move: share of the median TTFT, seconds
CACHED = 0.10  # of the share of cached prompt tokens: moves by more are named
IN_TTFT = ", and TTFT has that in it"
APART = 0.1  # share of a round in which two names may overlap where one followed the other
KINDS = {"model": "model", "fingerprint": "fingerprint", "service_tier": "service tier", "region": "region"}


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Medians in seconds; None where not measured."""

    before: float | None = None
    during: float | None = None
    after: float | None = None

    @property
    def typical(self) -> float | None:
        return self.during if self.during is not None else self.before


@dataclass(frozen=True, slots=True)
class Answers:
    """A round's answers to the fixed prompts: `changed` of `compared` differ from the first round's, and `chance` is
    how probable it would be that so many do, were the server the same. `failure`: how the first one failed."""

    compared: int
    changed: int
    chance: float
    failure: str = ""


@dataclass(frozen=True, slots=True)
class RoundEvidence:
    """One round of one target. `ttft`: its median, s."""

    round: int
    seen: Seen
    round_trip: RoundTrips
    ttft: float | None
    answers: Answers | None


@dataclass(frozen=True, slots=True)
class TargetEvidence:
    """`by_itself`: how many of how many prompts that were asked twice in a row were answered differently. `constant`:
    what stayed as it was, in a sentence; empty where nothing is known."""

    target: str
    rounds: tuple[RoundEvidence, ...]
    by_itself: tuple[int, int] | None
    constant: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What changed, from which round on. `text` follows the target's name: "its fingerprint changed from ..."."""

    target: str
    round: int
    fact: str  # model, fingerprint, service_tier, region, answers, cached_tokens, round_trip
    text: str


@dataclass(frozen=True, slots=True)
class ServerEvidence:
    targets: tuple[TargetEvidence, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def known(self) -> bool:
        """Is there anything but the names of models, which a server repeats?"""
        rounds = [each for target in self.targets for each in target.rounds]
        return any(
            each.answers or each.round_trip.typical or each.seen.names.keys() - {"model"} or each.seen.request_ids
            for each in rounds
        )

    @property
    def sentences(self) -> list[str]:
        """What changed, a sentence each. They hold what servers wrote: to be escaped."""
        return [f"{change.target}: {change.text}" for change in self.changes]


def gather(run: Run) -> ServerEvidence:
    """Of a run's rounds that count."""
    rounds: dict[str, list[RoundEvidence]] = {}
    for part in run.parts:
        for target, found in _of_round(part):
            rounds.setdefault(target, []).append(found)
    asked = {each.target: each for part in reversed(run.parts) for each in part.facts.evidence}
    return judge(rounds, {target: differing(each.first, each.again) for target, each in asked.items()})


def judge(rounds: Mapping[str, Sequence[RoundEvidence]], by_itself: Mapping[str, tuple[int, int]]) -> ServerEvidence:
    """`rounds`: by target, in their order; `by_itself`: see `TargetEvidence`."""
    later = [each for of_target in rounds.values() for each in of_target if each.round > 1]
    level = LEVEL / max(1, sum(each.answers is not None for each in later))
    changes = {target: list(_changes(target, of_target, by_itself, level)) for target, of_target in rounds.items()}
    targets = tuple(
        TargetEvidence(
            target, tuple(of_target), by_itself.get(target),
            _constant(of_target, by_itself.get(target), {change.fact for change in changes[target]}),
        )
        for target, of_target in rounds.items()
    )  # fmt: skip
    return ServerEvidence(targets, tuple(change for of_target in changes.values() for change in of_target))


def _of_round(part: Run) -> Iterator[tuple[str, RoundEvidence]]:
    answers = {each.target: each for each in part.facts.evidence}
    trips: dict[str, RoundTrips] = {}
    for trip in phases.round_trips(part, phases.readings(part.folder)):
        trips.setdefault(trip.target, RoundTrips(trip.before, trip.during, trip.after))
    answered = part.rows[part.rows["counted"] & part.rows["ok"]]
    medians = answered.groupby("target", observed=True)["ttft"].median()
    names = seen.seen(part.folder)
    for target in (each.name for each in part.facts.targets if each.name in names):
        yield target, RoundEvidence(
            part.round, names[target], trips.get(target, RoundTrips()), finite(medians.get(target)),
            compare(answers[target]) if target in answers else None,
        )  # fmt: skip


def differing(some: Sequence[str], others: Sequence[str]) -> tuple[int, int]:
    """How many of how many answers differ, of those that there are in both."""
    both = [(one, other) for one, other in zip(some, others, strict=False) if one and other]
    return sum(one != other for one, other in both), len(both)


def compare(facts: AnswerFacts) -> Answers:
    """A round's answers to those of the first."""
    changed, compared = differing(facts.first, facts.answers)
    threes = [three for three in zip(facts.first, facts.again, facts.answers, strict=False) if all(three)]
    now = sum(first == again != answer for first, again, answer in threes)
    then = sum(first == answer != again for first, again, answer in threes)
    return Answers(compared, changed, sign_test(now, then), facts.failure)


def sign_test(more: int, less: int) -> float:
    """The probability of `more` or more heads in so many throws of a fair coin."""
    throws = more + less
    return float(sum(comb(throws, heads) for heads in range(more, throws + 1)) / 2**throws)


def _changes(
    target: str, rounds: Sequence[RoundEvidence], by_itself: Mapping[str, tuple[int, int]], level: float
) -> Iterator[Change]:
    for kind, noun in KINDS.items():
        if any(each.seen.others.get(kind) for each in rounds):  # nearly each answer has another: it says nothing
            continue
        for number, text in _renamed([(each.round, each.seen.names.get(kind, ())) for each in rounds], noun):
            yield Change(target, number, kind, text)
    for each in rounds:
        if each.answers is not None and each.answers.chance <= level:
            changed, compared = each.answers.changed, each.answers.compared
            itself, twice = by_itself[target]
            text = (
                f"{changed} of {compared} fixed prompts were answered differently in round {each.round} than before "
                f"the first (asked twice in a row: {itself} of {twice}); the model behind the name, or how it is "
                "served, may have changed"
            )
            yield Change(target, each.round, "answers", text)
            break
    yield from _of_cache(target, rounds)
    yield from _of_network(target, rounds)


def _renamed(rounds: Sequence[tuple[int, Sequence[Name]]], noun: str) -> Iterator[tuple[int, str]]:
    """Rounds in which other names than before came, and in which one gave way to another."""
    before: Sequence[Name] = ()
    known: set[str] = set()
    for number, names in rounds:
        texts = {name.text for name in names}
        came = texts - known
        old, new = _followed(names)
        if new in came and (not known or old in {name.text for name in before}):
            yield number, f"its {noun} changed from {old} to {new} inside round {number}"
        elif known and before and not texts & {name.text for name in before} and texts:
            yield number, f"its {noun} changed from {_listed(before)} to {_listed(names)} in round {number}"
        elif known and came:
            new_ones = [name for name in names if name.text in came]
            share = sum(name.n for name in new_ones) / sum(name.n for name in names)
            yield number, f"a new {noun} came in round {number}, {_listed(new_ones)}, in {share:.0%} of its answers"
        known |= texts
        before = names or before


def _followed(names: Sequence[Name]) -> tuple[str, str]:
    """Two names of which one gave way to the other inside a round; empty where there are not just two such."""
    if len(names) != 2:
        return "", ""
    old, new = sorted(names, key=lambda name: name.first)
    overlap, whole = old.last - new.first, max(old.last, new.last) - old.first
    return (old.text, new.text) if new.last > old.last and overlap <= APART * whole else ("", "")


def _listed(names: Sequence[Name], most: int = 3) -> str:
    texts = [name.text for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _of_cache(target: str, rounds: Sequence[RoundEvidence]) -> Iterator[Change]:
    known = [(each.round, _cached_share(each.seen)) for each in rounds]
    shares = [(number, share) for number, share in known if share is not None]
    for number, share in shares[1:]:
        first, at_first = shares[0]
        if abs(share - at_first) > CACHED:
            then = f"{at_first:.0%} in round {first}"
            text = f"{share:.0%} of its prompt tokens came from its cache in round {number}, {then}"
            yield Change(target, number, "cached_tokens", text)
            return


def _cached_share(of_round: Seen) -> float | None:
    return of_round.cached_tokens / of_round.prompt_tokens if of_round.prompt_tokens > 0 else None


def _of_network(target: str, rounds: Sequence[RoundEvidence]) -> Iterator[Change]:
    """The first round whose round trip differs from the first's, and the first in which the load lengthened it."""
    measured = [each for each in rounds if each.round_trip.typical is not None]
    for each in measured:
        before, during = each.round_trip.before, each.round_trip.during
        if before is not None and during is not None and during > before and _notable(before, during, each.ttft):
            text = f"rose from {_ms(before)} to {_ms(during)} under the load of round {each.round}"
            yield Change(target, each.round, "round_trip", f"its network round trip {text}{IN_TTFT}")
            break
    for each in measured[1:]:
        first = measured[0]
        at_first, now = first.round_trip.typical or 0.0, each.round_trip.typical or 0.0
        if _notable(at_first, now, each.ttft):
            text = f"was {_ms(at_first)} in round {first.round} and {_ms(now)} in round {each.round}"
            yield Change(target, each.round, "round_trip", f"its network round trip {text}{IN_TTFT}")
            break


def _notable(before: float, after: float, ttft: float | None) -> bool:
    return abs(after - before) > max(LEAST_S, NOTABLE * (ttft or 0.0))


def _ms(seconds: float) -> str:
    return number_format.ms(seconds, unit=True)


def _constant(rounds: Sequence[RoundEvidence], by_itself: tuple[int, int] | None, changed: set[str]) -> str:
    parts = []
    for kind, noun in KINDS.items():
        names = list(dict.fromkeys(name.text for each in rounds for name in each.seen.names.get(kind, ())))
        if names and kind not in changed and not any(each.seen.others.get(kind) for each in rounds):
            parts.append(f"{noun} {names[0]}" if len(names) == 1 else f"{len(names)} {noun}s")
    if by_itself and by_itself[1] and "answers" not in changed:
        worst = max((each.answers.changed for each in rounds if each.answers), default=0)
        itself, twice = by_itself
        unsure = " and can't show a change" if 2 * itself > twice else ""
        parts.append(
            f"at most {worst} of {twice} fixed prompts answered differently (twice in a row: {itself}{unsure})"
        )
    return "; ".join(parts)
