"""Why a run may be trusted, and what it can't say: the second half of page one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

from ..store.run_folder import Run
from .evidence import ServerEvidence
from .gates import Verdict
from .results import Result
from .shares import FIRM
from .validity import Status, Validity


@dataclass(frozen=True, slots=True)
class Fact:
    """`doubtful`: it takes from the trust instead of giving it."""

    about: str
    text: str
    doubtful: bool = False


def trust(run: Run, here: Sequence[Result], validity: Validity, servers: ServerEvidence) -> Iterator[Fact]:
    """`here`: the results at the decisive load."""
    if run.facts.simulated:
        yield Fact("client", "none: simulated in virtual time, without a network")
    elif validity.status is Status.VALID:
        yield Fact("client", "valid: it was not the bottleneck, and its clock and arrival instants hold")
    for reason in validity.reasons:
        where = " at ".join(filter(None, (reason.target, reason.step)))
        yield Fact("client", f"{reason.status}: {f'{where}: ' if where else ''}{reason.text}", doubtful=True)
    planned = run.series.planned if run.series else len(run.parts) + len(run.lost)
    yield Fact("rounds", f"{len(run.parts)} of {planned} count" if planned > 1 else "one")
    for number, why in run.lost.items():
        yield Fact("rounds", f"round {number} is lost: {why}", doubtful=True)
    yield from _warm_up(run, here)
    if len(here) > 1:
        order = {"parallel": "targets side by side", "sequential": "each target alone, one after the other",
                 "random": "each target alone, in balanced random order"}  # fmt: skip
        series = run.series
        words = order.get(series.order if series else run.facts.order, "")
        yield Fact("order", words + (f" ({series.why})" if series and series.why else ""))
    for names, constant in alike((each.target, each.constant) for each in servers.targets if each.constant):
        yield Fact("servers", f"{names}: {constant}")
    for sentence in servers.sentences:
        yield Fact("servers", sentence, doubtful=True)
    if trace := run.facts.trace:
        same = "the same requests to every target: " if len(here) > 1 else ""
        yield Fact("load", f"{same}{trace.name or trace.source}, fingerprint {trace.fingerprint[:12]}")


def _warm_up(run: Run, here: Sequence[Result]) -> Iterator[Fact]:
    latest = {each.target: [start.steady_s for start in each.starts if isfinite(start.steady_s)] for each in here}
    since = {name: max(seconds) for name, seconds in latest.items() if seconds}
    begun = {name: f"{seconds:.0f} s" if seconds >= 0.5 else "the start" for name, seconds in since.items()}
    words = [f"{names} from {found} on" for names, found in alike(begun.items())]
    step = run.parts[0].step((here[0].target, here[0].step)) if here else None
    counted = f"; counted from {step.warmup_s:.0f} s on" if step else ""
    if words:
        yield Fact("warm-up", f"steady: {', '.join(words)}{counted}")
    for result in here:
        for part, start in zip(run.parts, result.starts, strict=False):
            where = result.target + (f" in round {part.round}" if len(run.parts) > 1 else "")
            if start.late_s:
                text = f"{where}: counting began {start.late_s:.0f} s before it was steady ({start.sign})"
                yield Fact("warm-up", f"{text}; a longer --warmup, or --warmup auto", doubtful=True)
            elif isnan(start.steady_s) and start.sign:
                text = f"{where}: no steady part was found ({start.sign})"
                yield Fact("warm-up", f"{text}; a longer run would tell", doubtful=True)


def not_measured(run: Run, here: Sequence[Result], verdicts: Sequence[Verdict], undecidable: str) -> Iterator[Fact]:
    """`undecidable`: why there are no verdicts of the gates that the run has."""
    rounds = len(run.parts)
    if rounds < FIRM:
        text = f"how far p90 and above move from run to run: {FIRM} rounds say it, and there {were(rounds)}"
        yield Fact("tails", text)
    for names, why in alike((each.target, each.headroom.why) for each in here if not each.headroom.shown):
        yield Fact("headroom", f"{names}: {why.removeprefix('no headroom: ')}; tails may move from day to day")
    yield Fact("another day", "other traffic on the servers and the network, other hours, other client machines")
    if run.facts.simulated or any(target.embedded for target in run.facts.targets):
        yield Fact("hardware", "simulated endpoints are models with assumed constants, not machines")
    unpaid = [each.target for each in here if not (each.cost and each.cost.at_this_load)]
    if here and all(each.goodput is None for each in here):
        yield Fact("cost", "of a million tokens that met the SLO: no objective says which do (--goodput)")
    elif unpaid:
        yield Fact("cost", f"of {listed(unpaid)}: no price is known")
    if not verdicts:
        yield Fact("SLO", undecidable or "no gate was given (--slo), so that nothing passes or fails")
    yield Fact("answers", "whether they are right: prompts are made of words, only lengths and times are real")


def alike(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(name, text) pairs, with the names of one text together."""
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    for text, group in names.items():
        yield listed(group), text


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else ""


def were(rounds: int) -> str:
    return "was one" if rounds == 1 else f"were {rounds}"
