"""The one exception for unusable input: a line that names the place, the expectation and the remedy."""

from __future__ import annotations


class InputError(Exception):
    """Input that can't be used: the command line prints it as one line and exits with code 2.

    `where` is the file (or option) at fault; `line` counts from 1; `column` is a name or a number from 1.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        line: int | None = None,
        column: str | int | None = None,
        remedy: str = "",
    ) -> None:
        self.message, self.where, self.line, self.column, self.remedy = message, where, line, column, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        place = self.where
        if self.line is not None:
            place += f":{self.line}" if place else f"line {self.line}"
        if self.column is not None:
            place += f", column {self.column}" if place else f"column {self.column}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.remedy})" if self.remedy else text
