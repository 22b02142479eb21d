"""Targets as options name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from targets.target import Target
from targets.targets_toml import load
from targets.url import split
from targets.wire import WIRES
from traces.errors import InputError

from .load import TargetOptions
from .secrets import sheltered


def required(value: str | None, option: str, remedy: str) -> str:
    if not value:
        raise InputError("is missing", where=option, remedy=remedy)
    return value


def target(name: str, url: str | None, options: TargetOptions) -> Target:
    """A Target from options. Raises InputError."""
    url = required(url, "--url", "for example --url http://127.0.0.1:8000")
    try:
        split(url)
    except ValueError as error:
        raise InputError(f"expected {error}" + ("" if "@" in url else f", got {url!r}"), where="--url") from None
    kind = options.endpoint_type
    if kind not in (*WIRES, "auto") and not kind.endswith(".toml"):
        raise InputError(
            f"no such endpoint type: {kind!r}",
            where="--endpoint-type",
            remedy=f"one of {', '.join(WIRES)}, auto, or a custom format's .toml file",
        )
    return Target(
        name, url, options.model, kind, options.api_key_env, options.api_key_file,
        headers=tuple(map(_header, options.header)), extra_body=_body(options.extra_body),
        ignore_eos=options.ignore_eos, insecure=options.insecure, ca_file=options.ca_file,
        limits=options.limits(),
    )  # fmt: skip


def short_name(url: str | None, model: str) -> str:
    """A target's name where the user gave none: its model, else its host and port."""
    return model.rpartition("/")[2] or urlsplit(url or "").netloc or "target"


def several(named: Sequence[str], file: Path | None, options: TargetOptions) -> list[Target]:
    """The targets of --target NAME=URL and of --targets FILE. Raises InputError."""
    targets = load(file) if file is not None else []
    for text in named:
        name, equals, url = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"expected NAME=URL, got {text!r}", where="--target")
        targets.append(target(name.strip(), url.strip(), options))
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
