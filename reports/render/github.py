"""A run's verdicts as GitHub Actions has them: annotations, which are commands on a job's output, and its summary page.

    ::error title=chat feels instant::FAIL: 1,234 ms ...

The runner obeys each line that begins with `::`, or holds `##[` anywhere, whoever wrote it. So our own lines are
escaped as GitHub's toolkit does (actions/toolkit, packages/core/src/command.ts), and all else that we print, which has
strangers' names in it, stands between `::stop-commands::TOKEN` and `::TOKEN::` with a token that nobody can guess.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from ..analysis.gates import Decision
from ..analysis.judgement import Judgement
from . import findings
from .markdown import ORDER
from .text import printable

COMMANDS = {Decision.FAIL: "error", Decision.NO_VERDICT: "warning", Decision.INVALID: "warning"}


def commands(judgement: Judgement) -> Iterator[str]:
    """A line for each gate that didn't pass, the worst first (GitHub shows ten of a kind), and one for all together."""
    for verdict in sorted(judgement.everything, key=lambda verdict: ORDER.index(verdict.decision)):
        if kind := COMMANDS.get(verdict.decision):
            why = map(findings.reason, judgement.why_invalid(verdict))
            text = "; ".join([f"{findings.where(verdict)}: {findings.outcome(verdict)}", *why])
            yield _command(kind, verdict.gate.name or findings.gate(verdict), text)
    yield _command("notice", "phaseload", ", ".join(findings.headline(judgement.everything, judgement.validity)))


@contextmanager
def shielded() -> Iterator[None]:
    """What is printed within is no command."""
    token = token_hex(16)
    sys.stdout.write(f"::stop-commands::{token}\n")
    yield
    sys.stdout.write(f"::{token}::\n")


def _command(kind: str, title: str, text: str) -> str:
    properties = _escaped(printable(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={properties}::{_escaped(printable(text))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
