"""A run's verdicts as Markdown, for a comment on a pull request and for the summary page of a CI job.

What comes from outside (names of targets, loads, gates and runs, command lines) stands in code spans only: there
GitHub and GitLab take nothing for markup, a mention, a link or a formula. A text that could end its span or its table's
cell stands in `<code>` instead, each of its signs as a number. What fails comes first, and a table has at most LONGEST
rows, so that a comment stays within what GitHub takes (65,536 characters).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..analysis.gates import Decision, Verdict
from ..analysis.judgement import Judgement
from ..analysis.validity import Validity
from . import findings
from .text import printable

LONGEST = 100  # rows of a table
WIDEST = 200  # characters of a name
PLAIN = re.compile(r"[A-Za-z0-9 ;:,.=%()-]*")
SIGNS = {Decision.PASS: "✅ PASS", Decision.FAIL: "❌ FAIL"}
ORDER = (Decision.FAIL, Decision.INVALID, Decision.NO_VERDICT, Decision.PASS)
HEADINGS = ("gate", "target", "load", "figure (95 % interval)", "n", "verdict", "note")
BASELINE_HEADINGS = (
    "may regress",
    "target",
    "load",
    "before",
    "now",
    "worse by (95 % interval)",
    "n",
    "verdict",
    "note",
)


def markdown(judgement: Judgement) -> str:
    """The whole comment."""
    return "\n".join(_lines(judgement)) + "\n"


def _lines(judgement: Judgement) -> Iterator[str]:
    word, validity = findings.headline(judgement.everything, judgement.validity)
    yield f"### phaseload: {word}, {validity}"
    yield from _reasons(judgement.validity)
    if judgement.verdicts:
        yield ""
        yield from _table(HEADINGS, judgement.verdicts)
    if judgement.before is not None:
        yield f"\nAgainst {code(judgement.baseline)}, run {judgement.before.validity.status}:"
        yield from _reasons(judgement.before.validity)
        yield ""
        yield from _table(BASELINE_HEADINGS, judgement.regressions)
    yield f"\n{_about(judgement)}"
    if rounds := findings.rounds(judgement.summary):
        yield from ("", *(f"- {_words(line)}" for line in rounds))
    yield from _reproduce(judgement)


def _reasons(validity: Validity) -> Iterator[str]:
    if validity.reasons:
        yield ""
    for why in validity.reasons:
        words = (f"- {why.status}:", code(findings.where(why)), _words(findings.reason(why)))
        yield " ".join(filter(None, words))


def _table(headings: Sequence[str], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The worst first."""
    ranked = sorted(verdicts, key=lambda verdict: ORDER.index(verdict.decision))
    yield f"| {' | '.join(headings)} |"
    yield f"| {' | '.join('---' for _ in headings)} |"
    for verdict in ranked[:LONGEST]:
        yield f"| {' | '.join(_cells(verdict))} |"
    if rest := ranked[LONGEST:]:
        failed = sum(verdict.decision is not Decision.PASS for verdict in rest)
        yield f"\n{len(rest):,} more rows, {failed:,} of them not passed: see the JUnit file or `--json`."


def _cells(verdict: Verdict) -> Iterator[str]:
    gate = verdict.gate
    yield (f"{code(gate.name)}<br>" if gate.name else "") + code(gate.text)
    yield code(verdict.target)
    yield code(verdict.step)
    *pair, figure = findings.figures(verdict)
    yield from pair
    ends = findings.bounds(verdict)
    yield figure + (f" ({ends})" if ends else "")
    yield findings.size(verdict)
    yield SIGNS.get(verdict.decision, f"⚠️ {str(verdict.decision).upper()}")
    yield _words(verdict.note)


def _about(judgement: Judgement) -> str:
    facts = judgement.run.facts
    size = f" ({facts.trace.requests:,} requests)" if facts.trace and not judgement.run.rounds else ""
    trace = f", trace {code(facts.trace.name)}{size}" if facts.trace else ""
    version = f", phaseload {code(facts.version)}" if facts.version else ""
    created = f", {code(facts.created)}" if facts.created else ""
    return f"Run {code(judgement.run.name)}{trace}{created}{version}."


def _reproduce(judgement: Judgement) -> Iterator[str]:
    """The commands that made the run and asked it, as far as they are known."""
    made = findings.command(judgement.run.facts.argv)
    commands = [printable(command).replace("\n", " ") for command in (made, judgement.command) if command]
    if not commands:
        return
    fence = "`" * max(3, 1 + max(_longest_run(command) for command in commands))
    yield "\n<details><summary>How to reproduce</summary>\n"
    yield f"{fence}sh"
    yield from commands
    yield f"{fence}\n"
    yield "</details>"


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)


def _words(text: str) -> str:
    """A sentence of ours as it is; as code where it holds something that might be markup."""
    return text if PLAIN.fullmatch(text) and "www." not in text else code(text)


def code(text: str) -> str:
    """A text as code, whatever it holds; nothing for an empty one."""
    text = printable(text).replace("\n", " ").strip()
    text = text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
    if not set(text) & set("`|\\"):
        return f"`{text}`" if text else ""
    return f"<code>{''.join(c if c.isalnum() or c == ' ' or ord(c) > 127 else f'&#{ord(c)};' for c in text)}</code>"
