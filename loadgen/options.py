"""What a user may ask for beside the load, as plain data; each field is an option of that name, with its default.

`cli.options.taking` makes a command take all of them at once. Nothing heavy is imported here: `--help` needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from targets.rules import TIMEOUTS, FieldError, Limits
from traces.errors import InputError


def at_option(error: FieldError) -> InputError:
    """The mistake in a target's field as the mistake of the option that gave it."""
    names = {limit: key for key, limit in TIMEOUTS.items()} | {"headers": "header"}
    option = "--" + names.get(error.field, error.field).replace("_", "-")
    return InputError(error.message, where=option, remedy=error.remedy)


@dataclass(frozen=True)
class TargetOptions:
    """How a target is spoken to, and what it is asked for, as options name it; `target_options` makes the `Target`.
    `header`: "KEY: VALUE"; `extra_body`: a JSON object; timeouts in seconds. Raises InputError."""

    model: str = ""
    endpoint_type: str = "chat"
    api_key_env: str | None = None
    api_key_file: str | None = None
    header: Sequence[str] = ()
    insecure: bool = False
    ca_file: str | None = None
    connect_timeout: float = Limits.connect_s
    first_token_timeout: float = Limits.first_token_s
    silence_timeout: float = Limits.silence_s
    request_timeout: float = Limits.request_s
    ignore_eos: bool | None = None
    extra_body: str | None = None

    def __post_init__(self) -> None:
        self.limits()

    def limits(self) -> Limits:
        """The four time limits. Raises InputError with the option."""
        try:
            return Limits(**{limit: getattr(self, key) for key, limit in TIMEOUTS.items()})
        except FieldError as error:
            raise at_option(error) from None


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
