"""What `phaseload serve --list` shows: profiles with their standing, models, settings. Pure text."""

from __future__ import annotations

from .profiles import ALIASES, load, models, names
from .settings import SETTINGS


def catalogue() -> str:
    lines = ["Profiles (the standing is that of the least firm figure that decides speed):"]
    for name in names():
        profile = load(name)
        also = "".join(f", also {alias}" for alias, full in ALIASES.items() if full == name)
        lines.append(f"  {name:28} {profile.standing:9} {profile.description}{also}")
    lines += ["", f"Models: {', '.join(models())}", "", "Settings (--set KEY=VALUE; any figure of a profile too):"]
    lines += [f"  {key:14} {meaning}" for key, meaning in SETTINGS.items()]
    return "\n".join(lines)


def sheet(name: str) -> str:
    """A profile's figures, each with its standing and source."""
    profile = load(name)
    lines = [f"{profile.name} ({profile.kind}, {profile.standing}): {profile.description}"]
    lines += [
        f"  {part}: {other}" for part, other in (("prefill", profile.prefill), ("decode", profile.decode)) if other
    ]
    for key, figure in profile.all_figures():
        lines.append(f"  {key:20} {figure.value:<12.6g} {figure.unit:12} {figure.standing:9} {figure.source}")
    return "\n".join(lines)
