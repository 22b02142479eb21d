"""Secrets in what a user names of a target: found by name, by shape and by entropy, and kept out of what a run writes.

Theory of operation. `Target.sheltered` puts ${PHASELOAD_SECRET_...} in the place of every literal header's value, and
of what looks like a key in a URL's path or a request's body. The values are held in memory, by this process and by
those of its run, which get them through an anonymous file: a process's environment can be read in /proc.
`Target.opened` puts them back when a client is made. So a false alarm costs nothing: the value is sent, only what is
kept and shown lacks it. Workers of other machines take it from their environment, by that name, or say that it isn't
there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count
from math import log2
from typing import Any

from traces.errors import InputError

HEADER = re.compile("auth|key|token|secret|cookie|passw|credential|session|signature", re.IGNORECASE)
FIELD = re.compile("api_?key|^key$|(^|access_?|auth_?|bearer_?)token$|secret|passw|authori|credential", re.IGNORECASE)
NAME = "PHASELOAD_SECRET_"  # of a held secret, before the name of its header
HELD: dict[str, str] = {}  # name -> value
FILE = "PHASELOAD_SECRETS"  # the variable that has the file descriptor of the anonymous file

# What keys of the providers begin with; a UUID.
SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:sk|pk|rk|gsk|hf|nvapi|xai|pplx|gh[opsu]|github_pat|glpat|xox[a-z]|csk|fw|r8|tvly)[-_][\w-]{4,}"
    r"|A[KS]IA[A-Z0-9]{12,}|AIza[\w-]{20,}|eyJ[\w-]{10,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
)
_WORD = re.compile(r"(?<=://)[^/?\s]+|([A-Za-z0-9][\w.~+/-]*=*)")  # or a URL's host, which is no secret
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_TURN = re.compile(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]")
_CHUNK = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")  # of a name: a word, capitals, a number
PLACE = re.compile(rf"\$\{{({NAME}\w+)\}}")


def suspicious(text: str) -> bool:
    """Is there a word in it that looks like a key?"""
    return _each_key(text, lambda _: "") != text


def _like_key(word: str) -> bool:
    return bool(SHAPE.search(word)) or any(map(_random, _RUN.findall(word))) or _mixed(word)


def _mixed(word: str) -> bool:
    """Across / + - . _ as well: is it made of chunks of one or two characters, or has it too many humps for a name?"""
    runs = re.findall("[A-Za-z0-9]+", word)
    size = sum(map(len, runs))
    joints = sum(len(_CHUNK.findall(run)) - 1 for run in runs)
    humps = len(re.findall("[a-z][A-Z]", word)) if size >= 20 and re.search(r"\d", word) else 0
    return size >= 10 and (joints >= size / 2 or (humps >= 4 and joints >= size * 0.15))


def _random(run: str) -> bool:
    """Do letters and digits alternate too often for a name, or are the characters too many different ones?"""
    shares = [count / len(run) for count in Counter(run).values()]
    return len(_TURN.findall(run)) >= 3 or (len(run) >= 18 and -sum(share * log2(share) for share in shares) >= 3.9)


def masked(text: str) -> str:
    """The text as it may be shown: without what looks like a key, and without users and queries of URLs."""
    text = re.sub(r"(://[^\s?#]*[?#])[^\s'\"]*", r"\1***", text)
    return _each_key(re.sub(r"(://)[^/@\s]+@", r"\1***@", text), lambda _: "***")


def _each_key(text: str, change: Callable[[str], str]) -> str:
    def part(match: re.Match[str]) -> str:
        parts = (match[1] or "").split("/")
        if _mixed("/".join(name for name in parts if not _like_key(name))):
            return change(match[1])
        return "/".join(change(name) if _like_key(name) else name for name in parts) if match[1] else match[0]

    return _WORD.sub(part, text)


def argv() -> list[str]:
    """The command line as a run may keep it."""
    return [_argument(before, argument) for before, argument in zip(["", *sys.argv], sys.argv, strict=False)]


def _argument(before: str, argument: str) -> str:
    start, brace, rest = argument.partition("{")
    if brace and literal_field(_json(brace + rest)) is not None:
        return start + "***"
    header = re.fullmatch(r"(--header=|-H)?([^:\s{]+):(?!//)\s*(.*)", argument, re.DOTALL)
    if header and "${" not in header[3] and (before in ("-H", "--header") or header[1] or HEADER.search(header[2])):
        return f"{header[1] or ''}{header[2]}: ***"
    return masked(argument)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def literal_header(headers: Iterable[tuple[str, str]]) -> str | None:
    """The first header whose name says that it holds a secret and whose value isn't a ${VARIABLE}."""
    return next((name for name, value in headers if HEADER.search(name) and "${" not in value), None)


def literal_field(body: object) -> str | None:
    """The first key of a JSON value, however deep, whose name says that its text is a secret."""
    if isinstance(body, list):
        return next(filter(None, map(literal_field, body)), None)
    if not isinstance(body, dict):
        return None
    for key, value in body.items():
        if isinstance(value, str) and value and FIELD.search(key.replace("-", "_")):
            return str(key)
        if (deeper := literal_field(value)) is not None:
            return deeper
    return None


def hold(value: str, place: str = "KEY") -> str:
    """Holds a secret; gives the ${VARIABLE} that stands for it, by whose name a worker elsewhere has it as well."""
    stem = NAME + re.sub(r"\W", "_", place).upper()
    names = chain([stem], (f"{stem}_{number}" for number in count(2)))
    name = next(name for name in names if HELD.get(name, value) == value)
    HELD[name] = value
    return f"${{{name}}}"


def header_value(name: str, value: str) -> str:
    """A header's value as a run may keep it."""
    return keys_held(value) if "${" in value or not value else hold(value, name)


def value(name: str) -> str | None:
    """Of a ${VARIABLE}: what this process holds, else the environment's."""
    return HELD.get(name, os.environ.get(name))


def absent(name: str, where: str, remedy: str = "export it") -> InputError:
    """For a variable that isn't there; a name that isn't a variable's may be a key."""
    plain = re.fullmatch("[A-Z_][A-Z0-9_]*", name) and not suspicious(name)
    shown = name if plain else "such variable (its name isn't shown: it may be a key)"
    return InputError(f"the environment has no {shown}", where=where, remedy=remedy)


def put_back(text: str, where: str) -> str:
    """The text with the held secrets in it. Raises InputError."""

    def secret(variable: re.Match[str]) -> str:
        if (found := value(variable[1])) is None:
            raise absent(variable[1], where, "export it on each machine that sends load")
        return found

    return PLACE.sub(secret, text)


def keys_held(text: str) -> str:
    """The text with ${VARIABLE}s in the place of what looks like a key."""
    return _each_key(text, hold)


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with each of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: changed(item, change) for key, item in value.items()}
    return type(value)(changed(item, change) for item in value) if isinstance(value, list | tuple) else value


def hand_over() -> tuple[dict[str, str], int]:
    """For a process that will `take_over` what this one holds: its environment, and the descriptor that it inherits."""
    file = os.memfd_create(FILE)
    os.write(file, json.dumps(HELD).encode())
    os.set_inheritable(file, True)
    return {**os.environ, FILE: str(file)}, file


def take_over() -> None:
    """Holds what the process that started this one holds."""
    if file := os.environ.pop(FILE, ""):
        HELD.update(json.loads(os.pread(int(file), 1 << 20, 0)))
        os.close(int(file))
