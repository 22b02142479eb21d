"""What a reader must know beside the figures, in words: for the terminal and for the page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from math import ceil, floor, isfinite, isinf
from pathlib import PurePath

from .. import number_format
from ..analysis.comparison import Comparison, Interval, Says, Word
from ..analysis.firmness import undecided
from ..analysis.gate_grammar import LATENCIES
from ..analysis.gates import Decision, Verdict, together
from ..analysis.judgement import Regression
from ..analysis.leaders import Flip, crossovers, flips, leads, listed
from ..analysis.quantiles import Quantile
from ..analysis.results import Counts, ErrorCount, Result
from ..analysis.summary import Summary
from ..analysis.validity import Reason, Validity
from ..store.durations import HEADLINES

HELD_S = 0.01  # from which on answers that stay open after their end are mentioned
ODD = 0.01  # the share of answers from which on an oddity of theirs is mentioned


def quantile(row: Quantile) -> str:
    """A quantile of a summary: its figure, `unbounded`, or a dash (`lacking` says why)."""
    return number_format.ms(row.value) if row.enough else "-"


def lacking(row: Quantile) -> str:
    """Why a quantile isn't printed, or has no interval: `n=41 < 299`, the samples there are and those it needs; `worth
    61 < 507`, the independent requests that they are worth; `drifting`."""
    if not row.enough:
        return f"n={row.n:,} < {row.needs:,}"
    if row.effective < row.effective_needed:
        return f"worth {floor(row.effective):,} < {ceil(row.effective_needed):,}"
    return "drifting" if row.drifting else ""


def interval(row: Quantile) -> str:
    """The 95 % interval, empty where there is none, or no steady figure that it could hold."""
    bounded = row.enough and isfinite(row.low) and not row.drifting
    return number_format.span(row.low, row.high) if bounded else ""


def failures(counts: Counts) -> str:
    """Those refused for their rate apart from those that failed: `3 + 5 refused`."""
    refused = counts.outcomes.get("rate_limited", 0)
    others = counts.failed - refused
    return " + ".join([f"{others:,}"] * bool(others or not refused) + [f"{refused:,} refused"] * bool(refused))


def reason(why: Reason) -> str:
    """With its remedy."""
    return f"{why.text} ({why.remedy})" if why.remedy else why.text


def figure(verdict: Verdict) -> str:
    value, unit = verdict.figure, verdict.gate.unit
    if unit == "%":
        return number_format.share(value)
    rate = unit.startswith("/") and value is not None
    return f"{number_format.rate(value)}/s" if rate else number_format.ms(value, unit=True)


def figures(verdict: Verdict) -> list[str]:
    """The figure; of a regression those before and now, and by how much the second is worse."""
    if not isinstance(verdict, Regression):
        return [figure(verdict)]
    rate = verdict.gate.metric not in LATENCIES
    shown = [number_format.rate(value) if rate else number_format.ms(value, unit=True) for value in verdict.pair]
    return [*shown, figure(verdict)]


def bounds(verdict: Verdict) -> str:
    """A verdict's interval: a latency's, or the one-sided bounds of a share. None where failures alone decide."""
    low, high = verdict.low, verdict.high
    if low is None or high is None or isinf(low):
        return ""
    if verdict.gate.unit == "%":
        return f"{number_format.share(low)}–{number_format.share(high)}"
    return number_format.span(low, high, unit=True)


def gate(verdict: Verdict) -> str:
    """What was asked, after its name where it has one."""
    text = f"regression: {verdict.gate.text}" if isinstance(verdict, Regression) else verdict.gate.text
    return f"{verdict.gate.name}: {text}" if verdict.gate.name else text


def command(argv: Sequence[str]) -> str:
    """A command line as a shell takes it; the program by its name, wherever it lay."""
    return shlex.join([PurePath(argv[0]).name.replace("__main__.py", "phaseload"), *argv[1:]]) if argv else ""


def rounds(summary: Summary) -> list[str]:
    """Which rounds count, and why the others don't; nothing of a plain run."""
    counting, lost = summary.run.rounds, summary.run.lost
    planned = len(counting) + len(lost)
    reasons = [f"round {number} is lost: {why}" for number, why in lost.items()]
    return [f"{len(counting)} of {planned} rounds count", *reasons] if planned > 1 else []


def size(verdict: Verdict) -> str:
    """The sample, its rounds, and the independent requests that it is worth where that is known and less: `1,649 in 5
    rounds, worth 1,194`."""
    effective = verdict.effective
    in_rounds = f" in {verdict.rounds} rounds" if verdict.rounds > 1 else ""
    said = "worth" in verdict.note
    worth = "" if effective is None or effective >= verdict.n or said else f", worth {effective:,.0f}"
    return f"{verdict.n:,}{in_rounds}{worth}"


def outcome(verdict: Verdict) -> str:
    """Decision, figure, interval and note in one line: `FAIL: 1,234 ms (1,100–1,300 ms), n=524, worth 61`."""
    interval = f" ({ends})" if (ends := bounds(verdict)) else ""
    figures = f"{figure(verdict)}{interval}" if verdict.figure is not None else "no figure"
    parts = (figures, f"n={size(verdict)}", verdict.note)
    return f"{str(verdict.decision).upper()}: {'; '.join(part for part in parts if part)}"


def details(verdict: Verdict) -> str:
    """All that is known of a verdict, a line each."""
    facts = {
        "gate": gate(verdict), "target": verdict.target, "load": verdict.step, "figure": figure(verdict),
        "interval": bounds(verdict), "n": size(verdict), "note": verdict.note,
    }  # fmt: skip
    return "\n".join(f"{name}: {text}" for name, text in facts.items() if text)


def headline(verdicts: Sequence[Verdict], validity: Validity) -> tuple[str, str]:
    """What the gates decided together, and whether on good evidence: (PASS 3/3, run valid). A run's being valid is no
    praise of its targets."""
    if not verdicts:
        return "no gate", f"run {validity.status}"
    passed = sum(verdict.decision is Decision.PASS for verdict in verdicts)
    return f"{together(verdicts, validity.status).upper()} {passed}/{len(verdicts)}", f"run {validity.status}"


def is_best(summary: Summary, result: Result, metric: str, q: float) -> bool:
    """Clearly so: faster than each other target of the step, by the comparison's words. Of the quantiles only the
    median and the p99 have such."""
    if q not in (0.5, 0.99):
        return False
    pairs = [p for p in summary.comparison if p.step == result.step and result.target in (p.base, p.other)]
    return bool(pairs) and all(pair.says(metric, q).winner == result.target for pair in pairs)


def alarms(summary: Summary) -> Iterator[str]:
    """Where there are no figures to read: the verdict is about the client, and stays valid."""
    for result in summary.results:
        if result.counts.counted and not result.counts.ok:
            first = failure(result.errors[0])
            yield f"{where(result)}: every request failed, {result.counts.counted:,} of them; {first}"
        elif result.no_answer_since is not None:
            since = f"no answer since {result.no_answer_since:.1f} s of the run"
            yield f"{where(result)}: {since}: every later request failed"


def notes(summary: Summary) -> list[str]:
    return [f"{where(result)}: {note}" for result in summary.results for note in _notes(result)]


def _notes(result: Result) -> Iterator[str]:
    counts, lengths = result.counts, result.lengths.output
    if counts.retried:
        yield (
            f"{counts.counted:,} tries of {counts.requests:,} requests: each try is a row, "
            "and n and failed count tries."
        )
    if (unstamped := result.client.unstamped or 0.0) > ODD:
        yield (
            f"{unstamped:.0%} of answers have no kernel receive times (Unix sockets give none): "
            "their instants are the client's own reads."
        )
    if (held := result.in_flight.held_open or 0.0) > HELD_S:
        yield f"the server kept answers open for {held * 1e3:.0f} ms (median) after their end: so long no slot is free."
    if result.steadiness.why and not result.steadiness.steady:
        depends = ": these percentiles depend on the run's length" if result.steadiness.overloaded else ""
        yield f"{result.steadiness.state}, {result.steadiness.why}{depends}."
    asked, given = lengths.asked_p50, lengths.given_p50 or 0
    if asked and abs(given / asked - 1) > 0.1:
        yield f"median output {given:,.0f} tokens where {asked:,.0f} were asked for: E2E isn't comparable."
    if counts.outcomes.get("rate_limited"):
        yield f"{_refusals(counts)}; in percentiles and gates they are failed ones."
    tail = _p99(result, "ttft")
    if tail.rounds > 1 and (why := undecided(tail, result.round_s, result.steadiness, result.headroom)):
        worst = number_format.ms(tail.worst, unit=True)
        yield f"its p99 is of these rounds, {worst} in the worst, and may be another next time: {why}."
    unbounded = [row for row in map(_p99, [result] * 2, ("ttft", "tpot")) if _unbounded(row)]
    if unbounded and not result.overloaded:
        row = max(unbounded, key=lambda row: row.more_s)
        yield (
            f"its p99 has no interval: n = {row.n:,}, worth {floor(row.effective):,} independent ones; "
            f"run about {number_format.period(row.more_s)} more."
        )
    if counts.unsent:
        yield f"{counts.unsent:,} of {counts.planned:,} requests had no turn before the end, and were not sent."
    if counts.sent_again:
        yield f"{counts.sent_again:,} requests were sent again: their connection had been closed before they came."
    if counts.whole:
        yield f"{counts.whole:,} answers did not stream: they have no TTFT and no TPOT."
    if counts.at_once > ODD * counts.ok:
        yield f"{counts.at_once:,} answers came all at once: their TTFT is their E2E, and they have no TPOT."
    if chunks := result.tokens_from.get("chunks"):
        yield f"{chunks:,} answers reported no token counts; their token-bearing events were counted instead."
    for error in result.errors[:2]:
        yield f"{error.n:,} x {failure(error)}"


def _p99(result: Result, metric: str) -> Quantile:
    return result.quantile(metric, 0.99)


def _unbounded(row: Quantile) -> bool:
    """A figure that is printed without an interval, for want of independent requests."""
    return row.enough and row.more_s > 0


def failure(error: ErrorCount) -> str:
    """Its outcome and words, those of one for all that differ in numbers only."""
    others = f" (one of {error.texts:,} that differ in numbers)" if error.texts > 1 else ""
    return str(error.outcome) + (f": {error.error}" if error.error else "") + others


def _refusals(counts: Counts) -> str:
    """Whom the target's quota let in: requests, of which each may have had several tries."""
    refused, requests, share = counts.outcomes["rate_limited"], counts.requests, counts.admitted or 0.0
    if not counts.retried:
        return f"{share:.1%} admitted: {refused:,} of {requests:,} requests were refused for their rate"
    never = requests - round(share * requests)
    return (
        f"{share:.1%} admitted: {never:,} of {requests:,} requests were refused for their rate at every try, "
        f"as were {refused:,} of {counts.counted:,} tries"
    )


def where(about: Result | Reason | Verdict) -> str:
    """Target and step, as far as there are such."""
    return " at ".join(part for part in (about.target, about.step) if part)


def causes(validity: Validity) -> list[list[Reason]]:
    """Reasons that call for the same remedy together, in order of weight."""
    groups: dict[tuple[str, ...], list[Reason]] = {}
    for reason in validity.reasons:
        about = reason.text.partition(":")[0] if reason.target else reason.text
        groups.setdefault((reason.status, reason.remedy, about), []).append(reason)
    return list(groups.values())


def flip_sentence(metric: str, flip: Flip) -> str:
    losers, winners = listed(flip.losers), listed(flip.winners)
    return f"The lead in {HEADLINES[metric]} flips at {flip.step}: {losers} lost it to {winners}."


def sentences(summary: Summary) -> list[str]:
    """What a person should remember beside the matrix: where leads are lost; the figures of a target that is alone."""
    share, lines = summary.run.quota_scale, []
    if share != 1:
        lines.append(f"The load was thinned to {share:.3g} of its sessions, for all targets alike (--quota-scale).")
    if len({result.target for result in summary.results}) == 1:
        return lines + [_alone(result) for result in summary.results]
    for metric, phase in HEADLINES.items():
        lines += [flip_sentence(metric, flip) for flip in flips(leads(summary, metric))]
        lines += [
            f"{phase.capitalize()}: {leader}'s lead over {follower} is gone at about {at:.0f} requests in flight."
            for leader, follower, at in crossovers(summary, metric)
        ]
    return lines


def _alone(result: Result) -> str:
    figures = []
    for metric, phase in HEADLINES.items():
        p50, p99 = (result.quantile(metric, q) for q in (0.5, 0.99))
        more = f", p99 {_duration(p99)}" if p99.enough else ""
        figures.append(f"{phase} {metric.upper()} p50 {_duration(p50)}{more}")
    return f"{where(result)}: {'; '.join(figures)}."


def _duration(row: Quantile) -> str:
    if row.enough and isfinite(row.value):
        return number_format.ms(row.value, unit=True)
    return f"{quantile(row)} ({lacking(row)})".removesuffix(" ()")


COMPARISON_HEADINGS = ("pair", "load", "phase", "pairs", "p50", "requests won", "p99")


def comparison_rows(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    """Rows of text under COMPARISON_HEADINGS: who is faster, by what factor, with which interval."""
    for pair in comparisons:
        for metric, phase in HEADLINES.items():
            ratio = pair.metrics[metric]
            names = (f"{pair.base} / {pair.other}", pair.step, f"{phase} {metric.upper()}")
            if ratio is None:
                yield (*names, f"{pair.pairs:,}", _why_no_ratio(pair, metric), "", "")
                continue
            won = f"{ratio.base_won:.0%} / {ratio.other_won:.0%}"
            p50, p99 = (said(pair, says, of) for says, of in ((ratio.says, ratio.median), (ratio.tail, ratio.p99)))
            yield (*names, f"{ratio.n:,}", p50, won, p99)


def _why_no_ratio(pair: Comparison, metric: str) -> str:
    lengths = pair.lengths
    if metric != "e2e" or lengths.comparable:
        return "too few pairs"
    if not lengths.base_given_p50 and not lengths.other_given_p50:
        return "not comparable: no request that both answered"
    return f"not comparable: gave {lengths.base_given_p50:,.0f} / {lengths.other_given_p50:,.0f} tokens"


def said(pair: Comparison, says: Says, ratio: Interval | None) -> str:
    """What a comparison says of one figure: the ratio of the faster one, or why nobody is."""
    if says.word in (Word.FASTER, Word.SLOWER, Word.NO_DIFFERENCE) and ratio is not None:
        return faster(pair, ratio)
    return f"{says.word}: {says.why}"


def faster(pair: Comparison, ratio: Interval) -> str:
    """From the winner's side, so that a factor is above 1: `groqrack 2.11x (2.06–2.11)`."""
    winner, loser = (pair.other, pair.base) if ratio.faster < 0 else (pair.base, pair.other)
    shown = ratio.inverse if ratio.faster < 0 else ratio
    ends = f"({_factor(shown.low)}–{_factor(shown.high)})"
    if not ratio.faster:
        return f"no difference shown {ends}"
    return f"{winner}: {loser} failed too often" if shown.value is None else f"{winner} {_factor(shown.value)}x {ends}"


def _factor(value: float | None) -> str:
    return "∞" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
