"""Secrets that stand on the command line: they move into the environment, and no run keeps them."""

from __future__ import annotations

import json
import os
import re
import sys

from targets.rules import SECRET_HEADER, literal_field

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
