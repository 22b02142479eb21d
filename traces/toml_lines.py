"""On which line of a user's TOML file a key stands, which tomllib doesn't say: for mistakes in what it gives."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from .errors import InputError


class TomlLines:
    """The lines of a file's text. `fallback`: the table that has a key where its own table doesn't."""

    def __init__(self, text: str, where: str, fallback: str = "") -> None:
        self._lines, self.where, self._fallback = text.splitlines(), where, fallback

    def mistake(self, table: str, key: str, message: str, remedy: str = "", *, nth: int = 1) -> InputError:
        """At `key` in `[table]`, or the nth `[[table]]`; at the table's head where the key isn't there."""
        line = self._line(table, key, nth) or self._line(self._fallback, key, 1) or self._line(table, "", nth)
        column = key if key.isprintable() else repr(key)
        return InputError(message, where=self.where, line=line, column=column or None, remedy=remedy)

    def _line(self, table: str, key: str, nth: int) -> int | None:
        """Line of the key, of the table's head where `key` is empty. Nested keys lead to their parent."""
        head, entry = (table,) if table else (), re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""")
        within: tuple[str, ...] = ()
        heads = 0
        for number, line in enumerate(self._lines, 1):
            if opened := _head(line):
                within = opened
                heads += within == head
                if within == ((table, key) if key else head) and max(heads, 1) == nth:
                    return number
            elif key and within == head and max(heads, 1) == nth and entry.match(line):
                return number
        return None


def _head(line: str) -> tuple[str, ...]:
    """The names in a table's head, `[a."b c"]` or `[[a]]`; empty for any other line."""
    try:
        opened: Any = tomllib.loads(line) if line.lstrip().startswith("[") else {}
    except tomllib.TOMLDecodeError:
        return ()
    names = []
    while isinstance(opened, dict) and opened:
        ((name, opened),) = opened.items()
        names.append(name)
    return tuple(names)
