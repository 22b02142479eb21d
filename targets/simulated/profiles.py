"""Profiles: hardware and compositions as TOML files in which each number has a source and a standing.

`kind` is `gpu`, `pipeline` or `disaggregated`. A figure is `{ value, unit, standing, source }` with a standing of
measured, fitted, vendor, derived or assumed. A user's own profile is the path of such a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

from traces.errors import InputError, one_of
from traces.files import read_text, toml

from .engine.roofline import Model

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
    raw = _toml(path)
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


def _toml(path: Path) -> dict[str, Any]:
    return toml(read_text(path), str(path))


@cache
def models() -> dict[str, Model]:
    return {name: Model(name=name, **sizes) for name, sizes in _toml(FOLDER / "models.toml").items()}


def model(name: str) -> Model:
    try:
        return models()[name]
    except KeyError:
        raise InputError(f"no such model: {name}", remedy=one_of(name, models())) from None
