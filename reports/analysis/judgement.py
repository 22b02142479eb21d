"""What was asked of a run and what came out: one `Judgement` for terminal, JSON, JUnit, Markdown and GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..store.run_folder import Run
from .gates import Decision, Verdict, exit_code
from .summary import Summary
from .validity import Reason, Validity


@dataclass(frozen=True, slots=True)
class Regression(Verdict):
    """Whether a figure got worse than a baseline's by more than its gate allows. `figure`, `low` and `high`: by how
    much it is worse (0.15: 15 %; below 0: better); `before` and `after`: the two figures, s or 1/s."""

    before: float | None = None
    after: float | None = None

    @property
    def pair(self) -> tuple[float | None, float | None]:
        return self.before, self.after

    def as_json(self) -> dict[str, object]:
        return Verdict.as_json(self) | {"before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Judgement:
    """`verdicts` of gates, and `regressions` against an earlier run, whose summary is `before`; `command`: what asks
    the same again, as a shell takes it."""

    run: Run
    summary: Summary
    verdicts: Sequence[Verdict]
    regressions: Sequence[Regression] = ()
    before: Summary | None = None
    command: str = ""

    @property
    def validity(self) -> Validity:
        return self.summary.validity

    def why_invalid(self, verdict: Verdict) -> list[Reason]:
        """The reasons for which an invalid verdict is one: the run's, and of a regression the baseline's too."""
        if verdict.decision is not Decision.INVALID:
            return []
        reasons = [*self.validity.reasons]
        if isinstance(verdict, Regression) and self.before is not None:
            reasons += self.before.validity.reasons
        return [reason for reason in reasons if reason.target in ("", verdict.target)]

    @property
    def baseline(self) -> str:
        """The earlier run's folder; empty for none."""
        return self.before.run.folder if self.before else ""

    @property
    def everything(self) -> list[Verdict]:
        return [*self.verdicts, *self.regressions]

    @property
    def exit_code(self) -> int:
        return exit_code(self.everything, self.validity.status)

    def as_json(self) -> dict[str, object]:
        """As `phaseload gate --json` prints it."""
        said: dict[str, object] = {
            "exit_code": self.exit_code, "validity": self.validity,
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
        }  # fmt: skip
        if len(self.summary.run.rounds) + len(self.summary.run.lost) > 1:
            said["rounds"] = {"counted": self.summary.run.rounds, "lost": self.summary.run.lost}
        if self.before is not None:
            regressions = [regression.as_json() for regression in self.regressions]
            said["baseline"] = {"run": self.baseline, "validity": self.before.validity, "verdicts": regressions}
        return said
