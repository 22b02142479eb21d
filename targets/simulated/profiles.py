"""Profiles: hardware and compositions as TOML files in which each number has a source and a standing; and the settings
that change them.

`kind` is `gpu`, `pipeline` or `disaggregated`. A figure is `{ value, unit, standing, source }` with a standing of
measured, fitted, vendor, derived or assumed. A user's own profile is the path of such a file.

Settings are `key=value` pairs, the same for the server, the virtual driver and a sweep's axes. A figure of the profile
is set by its name (`bandwidth`, `c0`, ...); a composition's parts by `prefill.`, `decode.` and `link.`. SETTINGS lists
the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

from traces.errors import InputError, one_of
from traces.files import read_text, toml

MODEL = "llama2-7b"  # unless another is named
FOLDER = Path(__file__).parent / "profiles"
STANDINGS = ("measured", "vendor", "fitted", "derived", "assumed")  # from the firmest to the least firm
ASIDE = ("price", "watts", "interconnect", "all_reduce")  # play no part in the speed of one device
UNITS = {
    **dict.fromkeys(("bandwidth", "interconnect"), "B/s"),
    **dict.fromkeys(("peak", "peak_fp8", "peak_fp4"), "flop/s"),
    **dict.fromkeys(("memory", "sram"), "B"),
    **dict.fromkeys(("mbu", "mfu"), "1"),
    **dict.fromkeys(("c0", "all_reduce", "stage", "t0", "handover"), "s"),
    "c1": "s/sequence", "price": "$/h", "watts": "W",
}  # fmt: skip
LINK_UNITS = UNITS | {"bandwidth": "GB/s"}
POSITIVE = ("bandwidth", "interconnect", "peak", "peak_fp8", "peak_fp4", "mbu", "mfu", "stage")  # divisors, a beat
ALIASES = {"a100": "a100-40g", "groqrack": "groqrack-alcf", "disaggregated": "gpu-prefill+groqrack-decode"}
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


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a transformer: parameters, layers, hidden size, KV bytes a token (fp16), embedding parameters."""

    name: str
    parameters: float
    layers: int
    hidden: int
    kv_bytes: float
    embedding: float
    context: int


@dataclass(frozen=True, slots=True)
class Figure:
    value: float
    unit: str
    standing: str
    source: str


@dataclass(frozen=True)
class Profile:
    """One file. `figures` and `link` by name; `engines`: name -> figures, the first one is the default."""

    name: str
    kind: str
    description: str
    figures: dict[str, Figure] = field(default_factory=dict)
    engines: dict[str, dict[str, Figure]] = field(default_factory=dict)
    link: dict[str, Figure] = field(default_factory=dict)
    prefill: str = ""
    decode: str = ""
    pool: int = 1
    settings: dict[str, str] = field(default_factory=dict)

    def all_figures(self) -> dict[str, Figure]:
        engines = {f"{engine}.": figures for engine, figures in self.engines.items()}
        groups = {"": self.figures, **engines, "link.": self.link}
        return {f"{group}{name}": figure for group, figures in groups.items() for name, figure in figures.items()}

    @property
    def standing(self) -> str:
        """The least firm standing among the figures that decide speed, those of a composition's parts included."""
        figures = self.figures | next(iter(self.engines.values()), {}) | self.link
        standings = [figure.standing for name, figure in figures.items() if name not in ASIDE]
        standings += [load(part).standing for part in (self.prefill, self.decode) if part]
        return max(standings, key=STANDINGS.index, default="assumed")

    def sheet(self) -> str:
        """The text of `phaseload serve NAME --figures`: each figure with its standing and source."""
        lines = [f"{self.name} ({self.kind}, {self.standing}): {self.description}"]
        lines += [f"  {part}: {name}" for part, name in (("prefill", self.prefill), ("decode", self.decode)) if name]
        for key, figure in self.all_figures().items():
            lines.append(f"  {key:20} {figure.value:<12.6g} {figure.unit:12} {figure.standing:9} {figure.source}")
        return "\n".join(lines)


def names() -> list[str]:
    """The bundled profiles and compositions."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "models")


@cache
def load(name: str) -> Profile:
    """A bundled profile by name or alias, or a user's own by the path of its file."""
    name = ALIASES.get(name, name)
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if name == "models" or not path.is_file():
        remedy = f"{one_of(name, sorted([*names(), *ALIASES]))} or the path of a TOML file"
        raise InputError(f"no such simulated endpoint: {name}", remedy=remedy)
    raw = toml(read_text(path), str(path))
    try:
        profile = Profile(
            name=path.stem, kind=_one_of(path, "kind", raw.get("kind"), ("gpu", "pipeline", "disaggregated")),
            description=str(raw.get("description", "")), figures=_figures(path, raw.get("figures", {})),
            engines={engine: _figures(path, figures) for engine, figures in raw.get("engines", {}).items()},
            link=_figures(path, raw.get("link", {}), LINK_UNITS), prefill=str(raw.get("prefill", "")),
            decode=str(raw.get("decode", "")), pool=int(raw.get("pool", 1)),
            settings={key: str(value) for key, value in raw.get("settings", {}).items()},
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"not a profile: {error}", where=str(path), remedy="docs/simulated.md shows the form"
        ) from None
    if profile.kind == "gpu" and not profile.engines:
        raise InputError("a GPU needs an engine", where=str(path), remedy="[engines.NAME] with mbu, mfu, c0, c1")
    return profile


def _figures(path: Path, raw: dict[str, Any], units: dict[str, str] = UNITS) -> dict[str, Figure]:
    figures = {}
    for name, entry in raw.items():
        value = entry.get("value") if isinstance(entry, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < inf:
            raise InputError("expected { value, unit, standing, source }", where=str(path), column=name)
        if not value and name in POSITIVE:
            raise InputError("expected a value above 0", where=str(path), column=name)
        _one_of(path, "name of a figure", name, tuple(units))
        unit = _one_of(path, f"{name}, unit", entry.get("unit"), (units[name],))
        standing = _one_of(path, name, entry.get("standing"), STANDINGS)
        figures[name] = Figure(float(value), unit, standing, str(entry.get("source", "")))
    return figures


def _one_of(path: Path, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        expected = f"one of {', '.join(allowed)}" if len(allowed) > 1 else repr(allowed[0])
        raise InputError(f"expected {expected}, found {value!r}", where=str(path), column=name)
    return str(value)


@cache
def models() -> dict[str, Model]:
    path = FOLDER / "models.toml"
    return {name: Model(name=name, **sizes) for name, sizes in toml(read_text(path), str(path)).items()}


def model(name: str) -> Model:
    try:
        return models()[name]
    except KeyError:
        raise InputError(f"no such model: {name}", remedy=one_of(name, models())) from None


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
