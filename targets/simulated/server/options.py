"""The options of a simulated server.

Both command lines, `phaseload serve` and `python -m targets.simulated`, are made from these fields and their metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from traces.errors import InputError


def _option(default: Any, help: str, *flags: str, metavar: str | None = None) -> Any:
    metadata = {"help": help, "flags": flags, "metavar": metavar}
    return (
        field(default_factory=list, metadata=metadata) if default == [] else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True)
class Options:
    """`name`: a profile or composition, or the path of a TOML file."""

    name: str = ""
    port: int = _option(0, "Port, 0 for any free one.")
    host: str = _option("127.0.0.1", "Address to bind.")
    model: str = _option("llama2-7b", "Model whose sizes set the speed.", "--model", "-m")
    pool: str = _option("", "Replicas or racks behind the address; P:D for two pools.")
    setting: list[str] = _option([], "A setting or a figure; see --list.", "--set", metavar="KEY=VALUE")  # noqa: RUF009
    seed: int = _option(0, "Seed of what is drawn.")
    fault: str = _option("", "Shares of requests that go wrong: stall=,reset=,http500=,malformed=,truncate=.")
    limit_requests: int = _option(0, "Requests a day; over it: 429. 0: no limit.")
    limit_tokens: int = _option(0, "Tokens a minute; over it: 429. 0: no limit.")
    leg: str = _option("nixl", "Which of two legs this is, such as sglang:decode.", metavar="PROTOCOL:ROLE")
    log: str | None = _option(None, "Write planned and actual instants to this file.")

    def __post_init__(self) -> None:
        for name, value, most in (
            ("port", self.port, 65_535),
            ("limit-requests", self.limit_requests, inf),
            ("limit-tokens", self.limit_tokens, inf),
        ):
            if not 0 <= value <= most:
                remedy = f"0 to {most:,}" if most < inf else "0: no limit"
                raise InputError(f"--{name} {value}", remedy=remedy)
