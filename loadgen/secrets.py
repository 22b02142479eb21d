"""Secrets that stand on the command line: they move into the environment, and no run keeps them. And those that a
worker may fill in for a master of another machine: only what the worker's own command line, or Locust file, names."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from targets.rules import FILLED_IN, SECRET_HEADER, literal_field
from traces.errors import InputError

if TYPE_CHECKING:
    from targets.target import Target

VARIABLE = "PHASELOAD_HEADER_"  # holds a secret that the command line gave, for the processes of the run
CREDENTIAL = re.compile(r"(bearer|basic) |(sk|gsk|hf|nvapi|xai)[-_]", re.IGNORECASE)


def sheltered(name: str, value: str) -> str:
    """The value; a literal secret moves into the environment, and its variable's name stays."""
    if not _literal(name, value):
        return value
    number = 1
    while os.environ.setdefault(f"{VARIABLE}{number}", value) != value:
        number += 1
    return f"${{{VARIABLE}{number}}}"


def _literal(name: str, value: str) -> bool:
    """Is the value a secret, not the name of one?"""
    return bool(value) and "${" not in value and bool(SECRET_HEADER.search(name) or CREDENTIAL.match(value))


def argv() -> list[str]:
    """The command line as a run may keep it: without literal secrets, wherever they stand."""
    return [_masked(argument) for argument in sys.argv]


def named(headers: Iterable[str], key_env: str | None, key_file: str | None) -> set[str]:
    """What headers' values and the API key's fields ask for: variables as "$NAME", and files."""
    variables = {*FILLED_IN.findall(" ".join(headers)), *filter(None, [key_env])}
    return {f"${name}" for name in variables} | set(filter(None, [key_file]))


def check_allowed(targets: Iterable[Target], allowed: Collection[str]) -> None:
    """Raises InputError for what a worker may not fill in, and so give to the URL that a master names."""
    for target in targets:
        wanted = named((value for _, value in target.headers), target.api_key_env, target.api_key_file)
        for secret in sorted(wanted - set(allowed)):
            option = f"--allow-env {secret[1:]}" if secret.startswith("$") else f"--allow-key-file {secret}"
            problem = f"the master's plan asks for {secret}, which this worker may not give away"
            raise InputError(problem, where=target.name, remedy=f"{option}, where the worker is started")


def _masked(argument: str) -> str:
    start, brace, rest = argument.partition("{")
    if brace and literal_field(_json(brace + rest)) is not None:
        return start + "***"
    header = re.fullmatch(r"([\w=.-]+):(?!//)\s*(.*?)\s*", argument, re.DOTALL)
    return f"{header[1]}: ***" if header is not None and _literal(header[1], header[2]) else argument


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
