"""The exceptions of phaseload. Everything that a caller may want to catch is below `PhaseloadError`:

    PhaseloadError
        InputError          input that can't be used: a file, an option, a value; nothing was sent
        RunFailed           a run that was started and ended without results, or a search that can't go on after it

A target's failure is never an exception: it is an `Outcome` in the `Exchange` (`targets.exchange`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from math import inf

OK, FAILED, UNUSABLE, INCOMPLETE = 0, 1, 2, 3  # exit codes of the command line


class PhaseloadError(Exception):
    """The base of the exceptions that phaseload raises on purpose."""


class RunFailed(PhaseloadError):
    """A run without usable results: the command line exits with `code`. `report`: what the run printed till then."""

    def __init__(self, message: str, *, code: int = INCOMPLETE, report: str = "") -> None:
        self.code, self.report = code, report
        super().__init__(message)


@dataclass(eq=False)
class InputError(PhaseloadError):
    """Input that can't be used: the command line prints it as one line and exits with code 2."""

    message: str
    _: KW_ONLY
    where: str = ""  # the file (or option) at fault
    line: int | None = None  # counts from 1
    column: str | int | None = None  # a name, or a number from 1
    remedy: str = ""  # what the user can do about it

    def __str__(self) -> str:
        place = self.where
        if self.line is not None:
            place += f":{self.line}" if place else f"line {self.line}"
        if self.column is not None:
            place += f", column {self.column}" if place else f"column {self.column}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}  # seconds of each unit, no end of a later one


def seconds(text: str | float, unit: str = "s") -> float:
    """A time as people write it (90, 90s, 10m, 500ms) in seconds; a bare number counts in `unit`. Raises ValueError."""
    written = next(filter(str(text).strip().endswith, TIMES), "")
    try:
        return float(str(text).strip().removesuffix(written)) * TIMES[written or unit]
    except ValueError:
        raise ValueError(f"expected a time such as 90s, 10m or 500ms, got {text!r}") from None


def one_of(given: str, known: Iterable[str], otherwise: str = "") -> str:
    """A remedy for a name that isn't known: the one that it resembles, else `otherwise`, or all there are."""
    near = get_close_matches(given, names := list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise or f"one of {', '.join(names)}"


def check_factor(factor: float, where: str) -> None:
    """Raises InputError unless the factor is above 0 and finite. Here, so that `--help` needn't load numpy for it."""
    if not 0 < factor < inf:  # NaN neither
        raise InputError(f"expected a factor above 0, not {factor:g}", where=where)
