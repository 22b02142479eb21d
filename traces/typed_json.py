"""JSON of our own dataclasses, strict both ways: `to_json` writes a dataclass, `from_json` reads the same one back.

Reading takes nothing for something else: "3" is no number, 3.0 is no whole number (but a whole number is a number), an
unknown field and a missing one are mistakes. Each mistake is one InputError with file and field. Lists become the
tuples that a dataclass declares. `to_plain` and `from_plain` do the same with dicts and lists, for channels that have
their own bytes (Locust's messages).

A field's metadata says where JSON differs from the dataclass: `named("phases")` gives its key; with LEFT_OUT a None is
not written at all, with EMPTY it is written, and read, as {}.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import orjson

from .errors import InputError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

LEFT_OUT: Mapping[str, str] = {"none": "left out"}
EMPTY: Mapping[str, str] = {"none": "{}"}
EXPECTED = {bool: "true or false", int: "a whole number", str: "a text", bytes: "bytes"}


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


def to_plain(value: object) -> Any:
    """The dataclass as dicts, tuples and scalars."""
    return _converter().unstructure(value)


def from_plain(kind: type[T], raw: object, where: str) -> T:
    """The dataclass that `to_plain` gave. Raises InputError with `where` and the field."""
    if not isinstance(raw, Mapping):
        raise InputError("expected an object", where=where)
    try:
        return _converter().structure(raw, kind)
    except Exception as problem:
        field, message = _mistake(problem)
        raise InputError(message, where=f"{where}, field {field}" if field else where) from None


@cache
def _converter() -> Converter:
    """Made at the first use: importing cattrs takes 60 ms."""
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    for kind in EXPECTED:
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(_is_literal, _literal)
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _tuple(converter, kind))
    converter.register_structure_hook_factory(_is_union, lambda kind: _union(converter, kind))
    converter.register_structure_hook_factory(dataclasses.is_dataclass, lambda kind: _reader(converter, kind))
    converter.register_unstructure_hook_func(lambda kind: kind is Any, lambda value: value)  # or it would be copied
    converter.register_unstructure_hook_factory(dataclasses.is_dataclass, lambda kind: _writer(converter, kind))
    return converter


def _scalar(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(_expected(EXPECTED[kind], value))
    return value


def _number(value: Any, _: type) -> float:
    if type(value) not in (int, float):
        raise ValueError(_expected("a number", value))
    return float(value)


def _expected(what: str, value: object) -> str:
    text = repr(value)
    return f"expected {what}, got {text if len(text) <= 40 else text[:40] + '...'}"


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _literal(kind: Any) -> Callable[[Any, Any], Any]:
    choices = get_args(kind)

    def structure(value: Any, _: Any) -> Any:
        if value not in choices:
            raise ValueError(_expected("one of " + ", ".join(map(str, choices)), value))
        return value

    return structure


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Lists only: cattrs would take a text for a tuple of its characters."""
    from cattrs.errors import IterableValidationError, IterableValidationNote

    arguments = get_args(kind)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(_expected("a list", value))
        of = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(of) != len(value):
            raise ValueError(_expected(f"a list of {len(of)}", value))
        items, mistakes = [], []
        for index, (item, item_kind) in enumerate(zip(value, of, strict=True)):
            try:
                items.append(converter.structure(item, item_kind))
            except Exception as problem:
                problem.add_note(IterableValidationNote("", index, item_kind))
                mistakes.append(problem)
        if mistakes:
            raise IterableValidationError("", mistakes, kind)
        return tuple(items)

    return structure


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _union(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """None, or the first of the kinds that fits; {} stands for None where a dataclass is expected."""
    kinds = [argument for argument in get_args(kind) if argument is not type(None)]
    optional = len(kinds) < len(get_args(kind))
    empty = optional and any(map(dataclasses.is_dataclass, kinds))

    def structure(value: Any, _: Any) -> Any:
        if optional and (value is None or (empty and value == {})):
            return None
        for argument in kinds[:-1]:
            try:
                return converter.structure(value, argument)
            except Exception:  # noqa: S112 - the last kind's mistake is reported
                continue
        return converter.structure(value, kinds[-1])

    return structure


def _overrides(kind: Any) -> Any:
    """Where JSON differs from the dataclass, as keyword arguments of cattrs' makers of hooks."""
    from cattrs.gen import override

    return {
        field.name: override(
            rename=field.metadata.get("key"), omit_if_default=field.metadata.get("none") == "left out" or None
        )
        for field in dataclasses.fields(kind)
    }


def _reader(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_dict_structure_fn

    of_mapping: Any = make_dict_structure_fn(kind, converter, **_overrides(kind))

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(_expected("an object", value))
        return of_mapping(value, kind)

    return structure


def _writer(converter: Converter, kind: Any) -> Callable[[Any], Any]:
    from cattrs.gen import make_dict_unstructure_fn

    to_mapping: Any = make_dict_unstructure_fn(kind, converter, **_overrides(kind))
    empties = [_key(field) for field in dataclasses.fields(kind) if field.metadata.get("none") == "{}"]

    def unstructure(value: Any) -> Any:
        mapping = to_mapping(value)
        for key in empties:
            if mapping[key] is None:
                mapping[key] = {}
        return mapping

    return unstructure if empties else to_mapping


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key") or field.name)


def _mistake(problem: BaseException) -> tuple[str, str]:
    """The first mistake's field ("steps[0].name") and what is wrong with it."""
    from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

    if isinstance(problem, ForbiddenExtraKeysError):
        return min(problem.extra_fields), "is unknown (written by another version?)"
    if isinstance(problem, ClassValidationError):
        keys = {field.name: _key(field) for field in dataclasses.fields(problem.cl)}
        inside = [(first, keys[note.name]) for first, note in problem.group_exceptions()[0]]
    elif isinstance(problem, IterableValidationError):
        indices = [(first, note.index) for first, note in problem.group_exceptions()[0]]
        inside = [(first, f"[{index}]" if isinstance(index, int) else str(index)) for first, index in indices]
    else:
        inside = []
    for first, place in inside:
        field, message = ("", "is missing") if isinstance(first, KeyError) else _mistake(first)
        return place + (field if field.startswith("[") or not field else f".{field}"), message
    if isinstance(problem, ClassValidationError | IterableValidationError):
        return _mistake(problem.exceptions[0])
    if isinstance(problem, AttributeError):  # cattrs took it for a mapping
        return "", "expected an object"
    return "", str(problem)
