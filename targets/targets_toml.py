"""targets.toml: each table is a target, its name the target's; [defaults] has keys for those that don't give their own.
docs/protocols.md shows one with every key. A mistake raises InputError with the file, the line and the key."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

from traces.errors import InputError, one_of
from traces.files import read_text, toml
from traces.toml_lines import TomlLines

from .rules import TIMEOUTS, FieldError, Limits
from .secrets import masked
from .target import LEGS, ONLY_LEGS, Target
from .wire import custom


def load_targets(path: str | Path) -> list[Target]:
    """The targets of a file, in its order. Raises InputError."""
    return parse(read_text(path), str(path))


def parse(text: str, where: str = "targets.toml") -> list[Target]:
    """The same from the file's text. Pure, but for a custom format's file that a target names."""
    tables, source = toml(text, where), TomlLines(text, where, "defaults")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise source.mistake("", name, f"{name!r} stands outside a table", f"start each target with [{name}]")
    defaults = tables.pop("defaults", {})
    if not tables:
        raise InputError("names no target", where=where, remedy="add a table such as [my-server] with its url")
    return [target for name, table in tables.items() for target in _targets(name, table, defaults, source)]


def _targets(name: str, table: dict[str, Any], defaults: dict[str, Any], source: TomlLines) -> list[Target]:
    """A table's target, or one for each pair of its servers: `name/i+j`, counted from 1 in the file's order."""
    values = {**defaults, **table}
    for key in values:
        if key in SECRETS:
            raise source.mistake(name, key, "a key itself has no place in this file", "use api_key_env = VARIABLE")
        if key not in KEYS:
            raise source.mistake(name, key, "unknown key", one_of(key, KEYS))
    legs = any(key in values for key in LEGS)
    if not legs:  # as a default such a key is for those targets that have legs
        values = {key: value for key, value in values.items() if key not in LEGS_ONLY or key in table}
    pairs = values.pop("every_pair", False)
    if not isinstance(pairs, bool):
        raise source.mistake(name, "every_pair", f"expected true or false, got {pairs!r}")
    if not legs and "every_pair" in table:
        raise source.mistake(name, "every_pair", ONLY_LEGS, "give prefill, decode, protocol")
    target = _target(name, values, source)
    if not pairs:
        return [target]
    pools = product(enumerate(target.prefill, 1), enumerate(target.decode, 1))
    return [
        dataclasses.replace(target, name=f"{name}/{i}+{j}", url=decode, prefill=(prefill,), decode=(decode,))
        for (i, prefill), (j, decode) in pools
    ]


def _target(name: str, values: dict[str, Any], source: TomlLines) -> Target:
    """The target; what is wrong with it gets its place in the file."""
    if "omit" in values:
        omit = values["omit"]
        if not isinstance(omit, list) or not all(isinstance(field, str) for field in omit):
            raise source.mistake(name, "omit", f"expected a list of texts, got {omit!r}")
    if str(values.get("type")).endswith(".toml"):
        values["type"] = _custom(name, values["type"], source)
    if "ca_file" in values and not Path(str(values["ca_file"])).is_file():
        shown = masked(repr(values["ca_file"]))
        raise source.mistake(name, "ca_file", f"expected a file that can be found from here, got {shown}")
    try:
        limits = Limits(**{key: values[key] for key in TIMEOUTS if key in values})
        target = Target(name, limits=limits, **{field: values[key] for key, field in FIELDS.items() if key in values})
    except FieldError as error:
        key = next((key for key, field in KEYS.items() if field == error.field), "")
        raise source.mistake(name, key if key in values else "", error.message, error.remedy) from None
    extra_body = {**dict.fromkeys(values.get("omit", ())), **target.extra_body}
    return dataclasses.replace(target, extra_body=extra_body)


def _custom(name: str, file: str, source: TomlLines) -> str:
    """Path of a custom format's file, which must be free of mistakes now."""
    path = (Path(source.where).parent / file).resolve()
    if not path.is_file():
        raise source.mistake(name, "type", f"no such file: {path}", "a custom format's file is looked for beside this")
    custom.parse(custom.read(str(path)), str(path))
    return str(path)


LEGS_ONLY = {"every_pair", "local_prefill_below"}
SECRETS = {"api_key", "key", "token", "password", "secret"}
RENAMED = {"endpoint_type": "type"}
FIELDS = {  # a key, and the field of Target that it gives
    RENAMED.get(field.name, field.name): field.name
    for field in dataclasses.fields(Target)
    if field.name not in ("name", "limits", "format")
}
KEYS = {**FIELDS, **{key: key for key in TIMEOUTS}, "omit": "", "every_pair": ""}
