"""JSON of our own dataclasses, strict both ways: `to_json` writes a dataclass, `from_json` reads the same one back.

Reading takes nothing for something else: "3" is no number, 3.0 is no whole number (but a whole number is a number), an
unknown field and a missing one are mistakes. Each mistake is one InputError with file and field. Lists become the
tuples that a dataclass declares. `to_plain` and `from_plain` do the same with dicts and lists, for channels that have
their own bytes (Locust's messages). `hold_to_types` asks the same of a dataclass that a library's caller makes.

A field's metadata says where JSON differs from the dataclass: `named("phases")` gives its key; with LEFT_OUT its
default is not written at all, with EMPTY a None is written, and read, as {}.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

from .errors import InputError

T = TypeVar("T")

LEFT_OUT: Mapping[str, str] = {"none": "left out"}
EMPTY: Mapping[str, str] = {"none": "{}"}
SCALARS = {bool: "true or false", int: "a whole number", str: "a text", bytes: "bytes", float: "a number"}
ALIKE: Mapping[Any, Any] = {int: Integral, float: Real, str: str | PathLike}  # numpy's numbers, and paths, from callers


def named(key: str) -> Mapping[str, str]:
    """Metadata of a field that has another name in JSON."""
    return {"key": key}


def to_json(value: object, *, indent: bool = True) -> bytes:
    """The dataclass as JSON, on a line for each value or all on one."""
    return orjson.dumps(to_plain(value), option=orjson.OPT_INDENT_2 if indent else None)


def from_json(kind: type[T], raw: bytes | str, where: str) -> T:
    """The dataclass that `to_json` wrote. Raises InputError with `where` (the file) and the field."""
    try:
        value = orjson.loads(raw)
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where=where) from None
    return from_plain(kind, value, where)


def to_plain(value: Any) -> Any:
    """The dataclass as dicts, lists and scalars."""
    if is_dataclass(value):
        kind: Any = type(value)
        return {
            key: {} if (item := getattr(value, field.name)) is None and none == "{}" else to_plain(item)
            for key, field, _, none in _fields(kind)
            if none != "left out" or getattr(value, field.name) != field.default
        }
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def from_plain(kind: type[T], raw: object, where: str) -> T:
    """The dataclass that `to_plain` gave. Raises InputError with `where` and the field."""
    try:
        value: T = _read(kind, raw, "")
    except _Mistake as mistake:
        if field := mistake.field.lstrip("."):
            where += f", field {field}"
        raise InputError(str(mistake), where=where, remedy=mistake.remedy) from None
    return value


def hold_to_types(record: object) -> None:
    """Gives each field of a dataclass, frozen or not, the value that its type says; a text where a `Sequence` is meant
    is one of one item. Raises InputError with the field."""
    kind: Any = type(record)
    for _, field, hint, _ in _fields(kind):
        object.__setattr__(record, field.name, from_plain(hint, getattr(record, field.name), field.name))


class _Mistake(Exception):
    """What is wrong with a field."""

    def __init__(self, message: str, field: str, remedy: str = "") -> None:
        super().__init__(message)
        self.field, self.remedy = field, remedy


def _read(kind: Any, raw: Any, field: str) -> Any:
    """The value of this kind. `field` is its place, such as ".steps[0].name"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return raw
    if is_dataclass(kind):
        return _record(kind, raw, field)
    if origin in (Union, types.UnionType):
        return _union(arguments, raw, field)
    if origin is tuple:
        kinds = arguments[:1] * len(_is(list | tuple, raw, "a list", field)) if arguments[-1] is ... else arguments
        if len(_is(list | tuple, raw, "a list", field)) != len(kinds):
            raise _unexpected(f"a list of {len(kinds)}", raw, field)
        return tuple(_read(of, item, f"{field}[{i}]") for i, (of, item) in enumerate(zip(kinds, raw, strict=True)))
    if origin is Sequence:
        items = (raw,) if isinstance(raw, str) else _is(list | tuple, raw, "a list", field)
        return tuple(_read(arguments[0], item, f"{field}[{i}]") for i, item in enumerate(items))
    if origin is list:
        items = _is(list | tuple, raw, "a list", field)
        return [_read(arguments[0], item, f"{field}[{i}]") for i, item in enumerate(items)]
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        items = _is(Mapping, raw, "an object", field).items()
        return {_read(arguments[0], key, field): _read(arguments[1], item, f"{field}.{key}") for key, item in items}
    choices = arguments if origin is Literal else [member.value for member in kind] if issubclass(kind, Enum) else ()
    if choices:
        if raw not in choices:
            raise _unexpected("one of " + ", ".join(map(str, choices)), raw, field)
        return raw if origin is Literal else kind(raw)
    if type(raw) is not kind and (isinstance(raw, bool) or not isinstance(raw, ALIKE.get(kind, kind))):
        raise _unexpected(SCALARS[kind], raw, field)
    return kind(raw)


def _record(kind: Any, raw: Any, field: str) -> Any:
    known = {key: (each, hint) for key, each, hint, _ in _fields(kind)}
    if unknown := set(_is(Mapping, raw, "an object", field)) - set(known):
        raise _Mistake("is unknown (written by another version?)", f"{field}.{min(unknown)}")
    values = {}
    for key, (each, hint) in known.items():
        if key in raw:
            values[each.name] = _read(hint, raw[key], f"{field}.{key}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise _Mistake("is missing", f"{field}.{key}")
    try:
        return kind(**values)
    except InputError as error:  # the dataclass's own check, which knows no file, and perhaps the field
        inner = getattr(error, "field", "")
        raise _Mistake(error.message, f"{field}.{inner}" if inner else field, error.remedy) from None


def _union(kinds: tuple[Any, ...], raw: Any, field: str) -> Any:
    """None, or the first of the kinds that fits; {} stands for None where a dataclass is expected."""
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) < len(kinds) and (raw is None or (raw == {} and any(map(is_dataclass, others)))):
        return None
    for kind in others[:-1]:
        try:
            return _read(kind, raw, field)
        except _Mistake:  # the last kind's mistake is reported
            continue
    return _read(others[-1], raw, field)


def _is(kind: Any, raw: Any, what: str, field: str) -> Any:
    if not isinstance(raw, kind):
        raise _unexpected(what, raw, field)
    return raw


def _unexpected(what: str, raw: object, field: str) -> _Mistake:
    text = repr(raw)
    return _Mistake(f"expected {what}, got {text if len(text) <= 40 else text[:40] + '...'}", field)


@cache
def _fields(kind: Any) -> list[tuple[str, Field[Any], Any, str]]:
    """Each field's key in JSON, the field, its type, and how its None is written."""
    hints = get_type_hints(kind)
    return [(f.metadata.get("key", f.name), f, hints[f.name], f.metadata.get("none", "")) for f in fields(kind)]
