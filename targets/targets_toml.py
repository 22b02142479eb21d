"""targets.toml: each table is a target, its name the target's.

    [defaults]                       # optional: keys for every target that doesn't give its own
    model = "llama-3.1-8b"

    [groq]
    type = "groq"                    # a key of targets.wire.WIRES, "auto", or a custom format's TOML file ("chat")
    url = "https://api.groq.com"
    api_key_env = "GROQ_API_KEY"     # or api_key_file; a key itself is refused
    headers = { x-team = "${TEAM}" }
    extra_body = { service_tier = "on_demand" }
    omit = ["stream_options"]        # fields that aren't sent (a null in extra_body, which TOML doesn't have)
    price_per_hour = 12.0
    watts = 4000
    labels = { hardware = "GroqRack" }

    [hybrid]                         # two legs that the client drives
    prefill = ["http://10.0.0.1:8100", "http://10.0.0.2:8100"]
    decode = "http://10.0.0.3:8200"
    protocol = "nixl"                # a key of targets.disaggregated.protocols.PROTOCOLS
    every_pair = true                # a target for each (prefill, decode) pair, instead of two pools
    metrics = ["http://10.0.0.1:8100/metrics"]

A mistake raises InputError with the file, the line and the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from traces.errors import InputError

from .disaggregated.protocols import PORT_LABELS, PROTOCOLS
from .target import KEYS_ELSEWHERE, OURS_ALONE, TIMEOUTS, Limits, Target, literal_field, literal_header, own_header
from .url import PORTS, split
from .wire import WIRES, custom

Check = Callable[[Any], object]  # the value as Spec holds it; ValueError says what was expected


def load(path: str | Path) -> list[Target]:
    """The targets of a file, in its order. Raises InputError."""
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read: {getattr(error, 'strerror', None) or 'not UTF-8'}", where=where) from None
    return parse(text, where)


def parse(text: str, where: str = "targets.toml") -> list[Target]:
    """The same from the file's text. Pure, but for a custom format's file that a target names."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        raise InputError(f"not TOML: {error}", where=where, line=int(at[1]) if at else None) from None
    source = _Source(text, where)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise source.mistake("", name, f"{name!r} stands outside a table", f"start each target with [{name}]")
    defaults = tables.pop("defaults", {})
    if not tables:
        raise InputError("names no target", where=where, remedy="add a table such as [my-server] with its url")
    return [spec for name, table in tables.items() for spec in _target(name, table, defaults, source)]


class _Source:
    """The file's text, to say on which line a key stands (tomllib doesn't)."""

    def __init__(self, text: str, where: str) -> None:
        self._lines, self.where = text.splitlines(), where

    def _line(self, table: str, key: str) -> int | None:
        """Line of `key` in `[table]`, of the table's head where `key` is empty. Nested keys lead to their parent."""
        head, entry = (table,) if table else (), re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""")
        within: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            if opened := _head(line):
                within = opened
                if within == ((table, key) if key else (table,)):
                    return number
            elif key and within == head and entry.match(line):
                return number
        return None

    def mistake(self, table: str, key: str, message: str, remedy: str = "") -> InputError:
        line = self._line(table, key) or self._line("defaults", key) or self._line(table, "")
        column = key if key.isprintable() else repr(key)
        return InputError(message, where=self.where, line=line, column=column or None, remedy=remedy)


def _head(line: str) -> tuple[str, ...]:
    """The names in a table's head, `[a."b c"]`; empty for any other line."""
    try:
        opened: Any = tomllib.loads(line) if line.lstrip().startswith("[") else {}
    except tomllib.TOMLDecodeError:
        return ()
    names = []
    while isinstance(opened, dict) and opened:
        ((name, opened),) = opened.items()
        names.append(name)
    return tuple(names)


def _target(name: str, table: dict[str, Any], defaults: dict[str, Any], source: _Source) -> list[Target]:
    if not name.isprintable() or not name.strip():
        raise source.mistake(name, "", f"expected a name without control characters, got {name!r}")
    fields: dict[str, Any] = {"name": name}
    ours: dict[str, Any] = {}  # what Spec doesn't have
    for key, value in {**defaults, **table}.items():
        if key in SECRETS:
            raise source.mistake(name, key, "a key itself has no place in this file", "use api_key_env = VARIABLE")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            raise source.mistake(name, key, "unknown key", f"did you mean {near[0]}?" if near else _known())
        field, check = KEYS[key]
        try:
            checked = check(value)
        except ValueError as error:
            secret = key in ("headers", "extra_body") or "@" in str(value)
            raise source.mistake(name, key, f"expected {error}" + ("" if secret else f", got {value!r}")) from None
        if field:
            fields[field] = checked
        else:
            ours[key] = checked
    _whole(name, table, fields, source)
    if "omit" in ours:
        fields["extra_body"] = {**dict.fromkeys(ours["omit"]), **fields.get("extra_body", {})}
    if str(fields.get("endpoint_type")).endswith(".toml"):
        fields["endpoint_type"] = _custom(name, fields["endpoint_type"], source)
    limits = {limit: fields.pop(key) for key, limit in TIMEOUTS.items() if key in fields}
    spec = Target(**fields, limits=Limits(**limits))
    return _pairs(spec) if ours.get("every_pair") and spec.prefill else [spec]


def _custom(name: str, file: str, source: _Source) -> str:
    """Path of a custom format's file; the mistakes in it are told now."""
    path = (Path(source.where).parent / file).resolve()
    if not path.is_file():
        raise source.mistake(name, "type", f"no such file: {path}", "a custom format's file is looked for beside this")
    custom.load(str(path))
    return str(path)


def _whole(name: str, table: dict[str, Any], fields: dict[str, Any], source: _Source) -> None:
    """Keys that need or exclude each other."""
    legs = [key for key in ("prefill", "decode", "protocol") if fields.get(key)]
    if legs and len(legs) < 3:
        missing = {"prefill", "decode", "protocol"} - set(legs)
        raise source.mistake(name, legs[0], f"two legs need {' and '.join(sorted(missing))} too")
    if legs and "url" in fields:
        raise source.mistake(name, "url", "a target has a url or two legs, not both")
    if not legs and "url" not in fields:
        raise source.mistake(name, "", f"target {name!r} has no url", 'add url = "http://host:port"')
    if not legs and (idle := LEGS_ONLY & table.keys()):  # as a default such a key is for those that have legs
        raise source.mistake(name, min(idle), "only a target with two legs has this", "give prefill, decode, protocol")
    if legs:
        fields["url"] = fields["decode"][0]


def _pairs(spec: Target) -> list[Target]:
    """A target for each pair of hardware: `name/i+j`, counted from 1 in the file's order."""
    pools = product(enumerate(spec.prefill, 1), enumerate(spec.decode, 1))
    return [
        dataclasses.replace(spec, name=f"{spec.name}/{i}+{j}", url=decode, prefill=(prefill,), decode=(decode,))
        for (i, prefill), (j, decode) in pools
    ]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("a text without control characters")
    return value


def _url(value: Any) -> str:
    text = _text(value)
    split(text)
    return text.rstrip("/")


def _urls(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise ValueError("a URL or a list of URLs")
    return tuple(map(_url, values))


def _metrics(value: Any) -> tuple[str, ...]:
    urls = _urls(value)
    if any(split(one).scheme not in PORTS for one in urls):
        raise ValueError("a URL such as http://host:8000/metrics")
    return urls


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise ValueError("a number above 0")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number of at least 0")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


def _file(value: Any) -> str:
    if not Path(_text(value)).is_file():
        raise ValueError("a file that can be found from here")
    return str(value)


def _labels(value: Any) -> dict[str, str]:
    labels = {key: str(one) for key, one in _table(value).items()}
    for key, text in labels.items():
        if not f"{key}{text}".isprintable():
            raise ValueError("labels without control characters")
        if key in PORT_LABELS and not (text.isdecimal() and 0 < int(text) < 1 << 16):
            raise ValueError(f"{key} to be a port")
    return labels


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    for name, text in _table(value).items():
        if not isinstance(text, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("header names with texts")
        if not text.isprintable() or max(text, default="") > "\xff":
            raise ValueError(f"{name} without control characters and within Latin-1")
    headers = tuple(value.items())
    if (own := own_header(headers)) is not None:
        raise ValueError(f"no header {own}: {OURS_ALONE}")
    if (secret := literal_header(headers)) is not None:
        raise ValueError(f"{secret} to name its secret as ${{VARIABLE}}")
    return headers


def _body(value: Any) -> dict[str, Any]:
    body = _table(value)
    if (key := literal_field(body)) is not None:
        raise ValueError(f"no secret such as {key}, which would be stored with the run: {KEYS_ELSEWHERE}")
    return body


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return tuple(map(_text, value))


def _type(value: Any) -> str:
    name = _text(value)
    if name not in (*WIRES, "auto") and not name.endswith(".toml"):
        raise ValueError(f"one of {', '.join(WIRES)}, auto, or a custom format's .toml file")
    return name


def _protocol(value: Any) -> str:
    if value not in PROTOCOLS:
        raise ValueError(f"one of {', '.join(PROTOCOLS)}")
    return str(value)


def _known() -> str:
    return f"known keys: {', '.join(KEYS)}"


LEGS_ONLY = {"every_pair", "local_prefill_below"}
SECRETS = {"api_key", "key", "token", "password", "secret"}
KEYS: dict[str, tuple[str, Check]] = {
    "type": ("endpoint_type", _type),
    "url": ("url", _url),
    "model": ("model", _text),
    "api_key_env": ("api_key_env", _text),
    "api_key_file": ("api_key_file", _text),
    "headers": ("headers", _headers),
    "extra_body": ("extra_body", _body),
    "omit": ("", _names),
    "ignore_eos": ("ignore_eos", _flag),
    "insecure": ("insecure", _flag),
    "ca_file": ("ca_file", _file),
    **{key: (key, _number) for key in TIMEOUTS},
    "prefill": ("prefill", _urls),
    "decode": ("decode", _urls),
    "protocol": ("protocol", _protocol),
    "every_pair": ("", _flag),
    "local_prefill_below": ("local_prefill_below", _count),
    "metrics": ("metrics", _metrics),
    "labels": ("labels", _labels),
    "price_per_hour": ("price_per_hour", _number),
    "watts": ("watts", _number),
}
