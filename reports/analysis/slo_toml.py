"""slo.toml: a service's gates in a file that lies beside its code. docs/gates.md shows one with every key.

    goodput = "ttft:800ms tpot:40ms"

    [[gate]]
    name = "chat feels instant"
    slo = "ttft p99 < 800ms"
    where = "prompt_tokens <= 4096"

    [baseline]
    run = "runs/last"
    max_regress = ["ttft p99 10%"]

Each gate becomes the line that `--slo` would take, name included, so that a run carries all of them in its run.json and
its verdicts can be had again without the file. A mistake raises InputError with the file, the line and the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from traces.errors import InputError, one_of
from traces.files import read_text, toml
from traces.toml_lines import TomlLines

from .gate_grammar import Gate, no_objectives, parse, parse_allowance, parse_conditions, parse_goodput

T = TypeVar("T")

KEYS = ("goodput", "gate", "baseline")
GATE_KEYS = ("name", "slo", "target", "load", "where")
BASELINE_KEYS = ("run", "max_regress")


@dataclass(frozen=True, slots=True)
class Slo:
    """`gates`: lines of `gate_grammar.parse`; `goodput`: objectives as `--goodput` has them; `baseline`: the run to
    compare with, relative paths from the file's own folder; `max_regress`: lines of `parse_allowance`."""

    gates: tuple[str, ...] = ()
    goodput: tuple[str, ...] = ()
    baseline: Path | None = None
    max_regress: tuple[str, ...] = ()


def load(path: str | Path) -> Slo:
    """Reads the file. Raises InputError."""
    return read(read_text(path), str(path))


def read(text: str, where: str = "slo.toml") -> Slo:
    """The same from its text. Pure."""
    tables, lines = toml(text, where), TomlLines(text, where)
    for key, value in tables.items():
        if key not in KEYS:
            place = (key, "") if isinstance(value, dict | list) else ("", key)
            raise lines.mistake(*place, f"unknown key {key!r}", one_of(key, KEYS))
    goodput = _texts(tables, "goodput", "", lines)
    try:
        objectives = parse_goodput(goodput)
    except InputError as error:
        raise lines.mistake("", "goodput", error.message, error.remedy) from None
    entries = tables.get("gate", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise lines.mistake("gate", "", "expected a list of gates", "begin each with [[gate]]")
    gates = [_gate(entry, number, lines) for number, entry in enumerate(entries, 1)]
    for number, gate in enumerate(gates, 1):
        if gate.metric == "goodput" and not objectives:
            raise lines.mistake("gate", "slo", no_objectives(gate).message, 'goodput = "ttft:800ms"', nth=number)
        if gate.name and gate.name in (other.name for other in gates[: number - 1]):
            raise lines.mistake("gate", "name", f"another gate is called {gate.name!r} too", nth=number)
    run, max_regress = _baseline(tables.get("baseline", {}), lines)
    if not gates and not max_regress:
        raise InputError("asks nothing", where=where, remedy='add [[gate]] with slo = "ttft p99 < 800ms"')
    baseline = None if run is None else Path(where).parent / run
    return Slo(tuple(gate.line for gate in gates), goodput, baseline, max_regress)


def _gate(entry: dict[str, Any], number: int, lines: TomlLines) -> Gate:
    def mistake(key: str, message: str, remedy: str = "") -> InputError:
        return lines.mistake("gate", key, message, remedy, nth=number)

    for key, value in entry.items():
        if key not in GATE_KEYS:
            raise mistake(key, "unknown key", one_of(key, GATE_KEYS))
        if not (isinstance(value, str) and value.strip() and value.isprintable()):
            raise mistake(key, f"expected a text of one line, got {_shown(value)}")
    if "slo" not in entry:
        raise mistake("", "a gate without slo", 'for example slo = "ttft p99 < 800ms"')

    def at(key: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except InputError as error:
            raise mistake(key, error.message, error.remedy) from None

    given = {key: value.strip() for key, value in entry.items()}
    gate = at("slo", lambda: parse(given["slo"]))
    for key, own in (("target", gate.target), ("load", gate.step), ("where", gate.where), ("name", gate.name)):
        if own and key in given:
            raise mistake(key, "stands in slo already", "give it once")
    conditions = at("where", lambda: parse_conditions(given["where"], "")) if "where" in given else gate.where
    whole = at("where" if "where" in given else "target", lambda: parse(_line(given, gate)))
    meant = (given.get("target", gate.target), given.get("load", gate.step), conditions, given.get("name", gate.name))
    if (whole.target, whole.step, whole.where, whole.name) != meant:  # a target called "a@b", say
        raise mistake("target", "no gate can name this target or load", "it holds @, or # between spaces")
    return whole


def _line(given: dict[str, str], gate: Gate) -> str:
    """All that the keys say as one line."""
    target, load = given.get("target", gate.target), given.get("load", gate.step)
    head = f"{target}{'@' if load else ''}{load}: " if target or load else ""
    slices = f" where {given['where']}" if "where" in given else ""
    name = given.get("name", gate.name)
    return f"{head}{gate.text.rpartition(':')[2].strip()}{slices}{' # ' if name else ''}{name}"


def _baseline(table: Any, lines: TomlLines) -> tuple[str | None, tuple[str, ...]]:
    if not isinstance(table, dict):
        raise lines.mistake("", "baseline", f"expected a table, got {_shown(table)}", "begin it with [baseline]")
    for key in table:
        if key not in BASELINE_KEYS:
            raise lines.mistake("baseline", key, "unknown key", one_of(key, BASELINE_KEYS))
    run = table.get("run")
    if run is not None and not (isinstance(run, str) and run.strip()):
        raise lines.mistake("baseline", "run", f"expected a run's folder, got {_shown(run)}")
    allowances = _texts(table, "max_regress", "baseline", lines)
    for text in allowances:
        try:
            parse_allowance(text)
        except InputError as error:
            raise lines.mistake("baseline", "max_regress", error.message, error.remedy) from None
    if run is not None and not allowances:
        message = "what may regress, and how far, is missing"
        raise lines.mistake("baseline", "max_regress", message, 'for example max_regress = ["ttft p99 10%"]')
    return run, allowances


def _texts(table: dict[str, Any], key: str, name: str, lines: TomlLines) -> tuple[str, ...]:
    """A text, or a list of texts."""
    value = table.get(key, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
        raise lines.mistake(name, key, f"expected a text or a list of texts, got {_shown(value)}")
    return tuple(listed)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."
