"""Settings: `key=value` pairs, the same for the server, the virtual driver and a sweep's axes; and a server's options.

A figure of the profile is set by its name (`bandwidth`, `c0`, ...); a composition's parts by `prefill.`, `decode.`
and `link.`. SETTINGS lists the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from traces.errors import InputError, one_of

from .profiles import ALIASES, MODEL, POSITIVE, Figure, load, models, names

SETTINGS = {
    "pool": "replicas or racks behind the address (1)",
    "engine": "a set of fitted constants: vllm, trtllm (the profile's first)",
    "tp": "GPUs of a tensor-parallel replica (1)",
    "precision": "fp16, fp8 or fp4 weights and arithmetic (fp16)",
    "kv_precision": "fp16 or fp8 KV cache (fp16)",
    "policy": "decode-first: chunks of prompts ride in decode steps; prefill-first: decoding waits (decode-first)",
    "chunk": "most tokens of a step, 0 for whole prompts (8192)",
    "max_batch": "most sequences at once (256)",
    "batching": "continuous, or static: a batch is complete before the next one begins (continuous)",
    "interval_ms": "steps leave on this beat, full or not; 0 for none (0)",
    "drafted": "tokens drafted a step by speculative decoding (0)",
    "acceptance": "probability that a drafted token is accepted if those before it were (0.7)",
    "draft_cost": "cost of drafting a token, as a share of a step that reads the weights once (0.05)",
    "prefill": "compositions: the profile of the prefill pool; decode: of the decode pool",
    "local_below": "compositions: prompts shorter than this are prefilled by the decode pool (0)",
    "prefix_cache": "1 to keep the KV of prompts for later ones that begin alike (0)",
    "cpu_gb": "CPU memory for KV that the GPU can't keep, gigabytes (0)",
    "cpu_bandwidth": "bytes a second from there (41e9: measured by LMCache)",
    "disk_gb": "disk or remote store below it, gigabytes (0)",
    "disk_bandwidth": "bytes a second from there (4.5e9: NVMe, assumed)",
    "link.bandwidth": "gigabytes a second, one way; link.t0 and link.handover in seconds",
    "link.overlap": "compositions: 1 to send each layer's KV while the next is computed (0)",
}


def pairs(texts: Sequence[str], option: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """["tp=4", ...] as a mapping. InputError for a text of another form."""
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            raise InputError(f"{option} {text}", remedy=form)
        settings[key.strip()] = value.strip()
    return settings


def catalogue() -> str:
    """The text of `phaseload serve --list`: profiles with their standing, models, settings."""
    lines = ["Profiles (the standing is that of the least firm figure that decides speed):"]
    for name in names():
        profile = load(name)
        also = "".join(f", also {alias}" for alias, full in ALIASES.items() if full == name)
        lines.append(f"  {name:28} {profile.standing:9} {profile.description}{also}")
    lines += ["", f"Models: {', '.join(models())}", "", "Settings (--set KEY=VALUE; any figure of a profile too):"]
    lines += [f"  {key:14} {meaning}" for key, meaning in SETTINGS.items()]
    return "\n".join(lines)


class Settings:
    """Key=value pairs, each to be taken once; `none_left` refuses those that were never taken."""

    def __init__(self, pairs: Mapping[str, str], prefix: str = "") -> None:
        self._pairs, self._prefix = dict(pairs), prefix
        self._known: set[str] = set()

    def text(self, key: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        self._known.add(key)
        value = self._pairs.pop(key, default)
        if allowed and value not in allowed:
            raise InputError(f"{self._prefix}{key}={value}", remedy=one_of(value, allowed))
        return value

    def number(self, key: str, default: float, least: float = 0.0) -> float:
        value = self.text(key, str(default))
        try:
            number = float(value)
        except ValueError:
            number = -inf
        if not least <= number < inf:
            raise InputError(f"{self._prefix}{key}={value}", remedy=f"a number, at least {least:g}")
        return number

    def count(self, key: str, default: int, least: int = 0) -> int:
        number = self.number(key, default, least)
        if number != int(number):
            raise InputError(f"{self._prefix}{key}={number:g}", remedy="a whole number")
        return int(number)

    def figure(self, key: str, figures: Mapping[str, Figure], default: float | None = None) -> float:
        if key in figures:
            default = figures[key].value
        if default is None:
            raise InputError(f"the profile has no figure named {key}", remedy="add it to the file")
        number = self.number(key, default)
        if not number and key in POSITIVE:
            raise InputError(f"{self._prefix}{key}=0", remedy="a number, more than 0")
        return number

    def part(self, prefix: str, defaults: Mapping[str, str] = {}) -> Settings:
        """Those that begin with `prefix.`, taken out of this one."""
        start = f"{prefix}."
        self._known.add(f"{start}*")
        taken = {key.removeprefix(start): self._pairs.pop(key) for key in list(self._pairs) if key.startswith(start)}
        return Settings({**defaults, **taken}, start)

    def none_left(self) -> None:
        for key in self._pairs:
            raise InputError(f"no such setting: {key}", remedy=one_of(key, sorted(self._known)))


def _option(default: Any, help: str, *flags: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "flags": flags, "metavar": metavar})


@dataclass(frozen=True)
class ServerOptions:
    """The options of a simulated server. Both command lines, `phaseload serve` and `python -m targets.simulated`, are
    made from these fields and their metadata. `name`: a profile or composition, or the path of a TOML file."""

    name: str = ""
    port: int = _option(0, "Port, 0 for any free one.")
    host: str = _option("127.0.0.1", "Address to bind.")
    model: str = _option(MODEL, "Model whose sizes set the speed.", "--model", "-m")
    pool: str = _option("", "Replicas or racks behind the address; P:D for two pools.")
    setting: Sequence[str] = _option((), "A setting or a figure; see --list.", "--set", metavar="KEY=VALUE")
    seed: int = _option(0, "Seed of what is drawn.")
    fault: str = _option("", "Shares of requests that go wrong: stall=,reset=,http500=,malformed=,truncate=.")
    limit_requests: int = _option(0, "Requests a day; over it: 429. 0: no limit.")
    limit_tokens: int = _option(0, "Tokens a minute; over it: 429. 0: no limit.")
    leg: str = _option("nixl", "Which of two legs this is, such as sglang:decode.", metavar="PROTOCOL:ROLE")
    log: str | None = _option(None, "Write planned and actual instants to this file.")

    def __post_init__(self) -> None:
        for name, most in (("port", 65_535), ("limit-requests", inf), ("limit-tokens", inf)):
            value = getattr(self, name.replace("-", "_"))
            if not 0 <= value <= most:
                raise InputError(f"--{name} {value}", remedy=f"0 to {most:,}" if most < inf else "0: no limit")
