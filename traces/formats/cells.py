"""What a public trace's JSON or text holds, as exact numbers: instants in integer nanoseconds, lengths in whole tokens.

Units met: seconds (number or text), ms, us, ns, ISO 8601 naive or with an offset, up to nine fractional digits. No
float ever holds an instant: the 100 ns digits of the Azure traces don't survive one.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import InputError
from ..files import Source
from ..trace import LATEST, LONGEST

NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? ?(?:Z|([+-])(\d\d):?(\d\d)?)?", re.ASCII
)


class BadCell(ValueError):
    """A value that can't be used: the reader adds file and line."""

    def __init__(self, column: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.column, self.message, self.remedy = column, message, remedy


def instant(value: Any, unit: str, column: str) -> int:
    """Nanoseconds. `unit` is s, ms, us, ns or iso (then since 1970, naive times taken as UTC)."""
    if unit == "iso":
        nanos = _iso(value, column)
    else:
        number = _decimal(value, column, f"a time in {unit}")  # quantising 10**20 would raise: refused below
        nanos = LATEST + 1 if number.adjusted() > 20 else int((number * NANOS[unit]).to_integral_value())
    if abs(nanos) > LATEST:
        raise BadCell(column, f"expected an instant within 146 years of 1970, got {shown(value)}")
    return nanos


def length(value: Any, column: str, least: int = 0) -> int:
    """A whole number of tokens, at least `least`."""
    tokens = whole(value, column)
    if tokens < least or tokens > LONGEST:
        raise BadCell(column, f"expected {least} to {LONGEST} tokens, got {shown(value)}")
    return tokens


def whole(value: Any, column: str) -> int:
    """A whole number that fits 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    else:
        decimal = _decimal(value, column, "a whole number")
        if decimal.adjusted() > 20 or decimal != decimal.to_integral_value():
            raise BadCell(column, f"expected a whole number, got {shown(value)}")
        number = int(decimal)
    if abs(number) >= 2**63:
        raise BadCell(column, f"expected a number below 2**63, got {shown(value)}")
    return number


def block_ids(value: Any, column: str) -> list[int]:
    """Block ids: a JSON array, or numbers between spaces in a CSV cell."""
    ids: list[Any] = value.split() if isinstance(value, str) else listing(value, column, "a list of block ids")
    if ids and set(map(type, ids)) == {int} and -(2**63) < min(ids) <= max(ids) < 2**63:
        return ids  # nothing to convert: the way of millions of ids
    return [whole(block, column) for block in ids]


def parse(line: bytes | str) -> Any:
    """One JSON value; BadCell where it isn't one, nests too deeply, or holds a number that is too long."""
    try:
        return json.loads(line, parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise BadCell("", f"not JSON: {str(error)[:80]}") from None


def mapping(value: Any, column: str = "", what: str = "a JSON object") -> Any:
    if not isinstance(value, dict):
        raise BadCell(column, f"expected {what}, got {shown(value)}")
    return value


def listing(value: Any, column: str = "", what: str = "a list") -> list[Any]:
    if not isinstance(value, list):
        raise BadCell(column, f"expected {what}, got {shown(value)}")
    return value


def document(source: Source, what: str) -> Any:
    """A whole file that is one JSON object."""
    with source.open() as stream:
        try:
            return mapping(parse(stream.read()))
        except BadCell as error:
            raise InputError(error.message, where=source.name, remedy=f"expected {what}") from None


def keys(head: bytes) -> list[str]:
    """The keys of a file's first line, where that is a JSON object."""
    try:
        return list(mapping(parse(head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0])))
    except BadCell:
        return []


def shown(value: Any) -> str:
    """A value short enough for a message."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _iso(value: Any, column: str) -> int:
    match = ISO.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadCell(column, f"expected a time like 2023-11-16 18:17:03.9799600, got {shown(value)}")
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError as error:
        raise BadCell(column, f"expected a time of the calendar, got {shown(value)} ({error})") from None
    seconds = int(when.timestamp())  # whole ones: exact
    if sign:
        seconds -= int(sign + "1") * (int(off_hours) * 3600 + int(off_minutes or 0) * 60)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


def _decimal(value: Any, column: str, what: str) -> Decimal:
    try:
        if isinstance(value, float):
            value = repr(value)
        if isinstance(value, int | str | Decimal) and not isinstance(value, bool):
            number = Decimal(value)
            if number.is_finite():
                return number
    except (InvalidOperation, ValueError):
        pass
    raise BadCell(column, f"expected {what}, got {shown(value)}")
