"""What a user may ask for beside the load; each field is an option of that name, with its default.

`cli.options.taking` makes a command take all of them at once. `--help` reads them, so `Target` and what
it needs are imported when a target is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from targets.rules import FieldError, Limits
from traces.errors import InputError

from .secrets import sheltered

if TYPE_CHECKING:
    from targets.target import Target


@contextmanager
def _at_option() -> Iterator[None]:
    """The mistake in a target's field becomes the mistake of the option that gave it."""
    try:
        yield
    except FieldError as error:
        option = "--" + {"headers": "header"}.get(error.field, error.field).replace("_", "-")
        raise InputError(error.message, where=option, remedy=error.remedy) from None


@dataclass(frozen=True)
class TargetOptions:
    """How a target is spoken to, and what it is asked for, as options name it: a `Target` without its URL.
    `header`: "KEY: VALUE"; `extra_body`: a JSON object; timeouts in seconds. Raises InputError."""

    model: str = ""
    endpoint_type: str = "chat"
    api_key_env: str | None = None
    api_key_file: str | None = None
    header: Sequence[str] = ()
    insecure: bool = False
    ca_file: str | None = None
    connect_timeout: float = Limits.connect_timeout
    first_token_timeout: float = Limits.first_token_timeout
    silence_timeout: float = Limits.silence_timeout
    request_timeout: float = Limits.request_timeout
    ignore_eos: bool | None = None
    extra_body: str | None = None

    def __post_init__(self) -> None:
        with _at_option():
            self._limits()

    def _limits(self) -> Limits:
        return Limits(self.connect_timeout, self.first_token_timeout, self.silence_timeout, self.request_timeout)

    def target(self, url: str | None, name: str = "") -> Target:
        """The target at this URL. Raises InputError with the option."""
        from targets.target import Target

        if not url:
            raise InputError("is missing", where="--url", remedy="for example --url http://127.0.0.1:8000")
        headers, extra_body = tuple(map(_header, self.header)), _body(self.extra_body)
        with _at_option():
            return Target(
                name, url, self.model, self.endpoint_type, self.api_key_env, self.api_key_file, headers,
                extra_body, self.ignore_eos, self.insecure, self.ca_file, self._limits(),
            )  # fmt: skip

    def targets(self, named: Sequence[str], file: Path | None) -> list[Target]:
        """The targets of --target NAME=URL and of --targets FILE. Raises InputError."""
        from targets.targets_toml import load_targets

        targets = load_targets(file) if file is not None else []
        for text in named:
            name, equals, url = text.partition("=")
            if not equals or not name.strip():
                raise InputError(f"expected NAME=URL, got {text!r}", where="--target")
            targets.append(self.target(url.strip(), name.strip()))
        if len({target.name for target in targets}) < len(targets):
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


@dataclass(frozen=True)
class RunOptions:
    """How a run is prepared, judged and kept, whatever its targets and its load.

    `slo`: gates such as "ttft p99 < 800ms"; `goodput`: objectives such as "ttft:800 tpot:40" (ms). `prompts`: a JSONL
    file of the user's own texts, from which prompts take their words; `tokenizer`: a tokenizer.json in whose tokens
    prompts are exact; `token_ids`: prompts are sent as ids below it; `salt` keeps prompts out of the caches of earlier
    runs: "auto", "none", or a text. `wait_ready` ("90s", "10m"): how long a target may take until it accepts
    connections; `probe`: each target gets one request before the run. `out`: the run's folder (runs/NAME-TIME where it
    is None); `report`: report.html is written; `json`: the command line prints the summary as JSON.
    """

    slo: Sequence[str] = ()
    goodput: Sequence[str] = ()
    prompts: str | None = None
    tokenizer: str | None = None
    token_ids: int | None = None
    salt: str = "auto"
    wait_ready: str | None = None
    probe: bool = True
    out: str | Path | None = None
    report: bool = True
    json: bool = False


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keyword arguments of `replay`, `bakeoff` and `capacity`."""

    slo: Sequence[str]
    goodput: Sequence[str]
    prompts: str | None
    tokenizer: str | None
    token_ids: int | None
    salt: str
    wait_ready: str | None
    probe: bool
    out: str | Path | None
    report: bool
