"""Targets as options name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from targets.rules import FieldError
from targets.target import Target
from targets.targets_toml import load
from traces.errors import InputError

from .options import TargetOptions, at_option
from .secrets import sheltered


def target(url: str | None, options: TargetOptions, name: str = "") -> Target:
    """A Target from options. Raises InputError with the option."""
    if not url:
        raise InputError("is missing", where="--url", remedy="for example --url http://127.0.0.1:8000")
    headers, extra_body = tuple(map(_header, options.header)), _body(options.extra_body)
    try:
        return Target(
            name, url, options.model, options.endpoint_type, options.api_key_env, options.api_key_file, headers,
            extra_body, options.ignore_eos, options.insecure, options.ca_file, options.limits(),
        )  # fmt: skip
    except FieldError as error:
        raise at_option(error) from None


def several(named: Sequence[str], file: Path | None, options: TargetOptions) -> list[Target]:
    """The targets of --target NAME=URL and of --targets FILE. Raises InputError."""
    targets = load(file) if file is not None else []
    for text in named:
        name, equals, url = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"expected NAME=URL, got {text!r}", where="--target")
        targets.append(target(url.strip(), options, name.strip()))
    names = [each.name for each in targets]
    if len(set(names)) < len(names):
        raise InputError("two targets have the same name", where="--target", remedy="results are told apart by it")
    return targets


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InputError("expected KEY:VALUE", where="--header", remedy="what was given isn't shown: it may be a key")
    return name.strip(), sheltered(name, value.strip())


def _body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where="--extra-body") from None
    if not isinstance(body, dict):
        raise InputError("expected a JSON object", where="--extra-body")
    return body
