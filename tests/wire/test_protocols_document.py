"""docs/protocols.md: its examples are read by the program, and its tables name what there is."""

import re
import tomllib
from pathlib import Path

from targets.targets_toml import KEYS, parse
from targets.wire import WIRES, custom
from targets.wire.protocols import PROTOCOLS

TEXT = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
TARGETS, FORMAT = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def column(heading):
    """First words in backquotes of the rows of the table whose head begins so."""
    table = TEXT[TEXT.index(f"| {heading} |") :].partition("\n\n")[0]
    return re.findall(r"^\| `([\w.-]+)`", table, re.MULTILINE)


def test_the_examples_are_read():
    names = [spec.name for spec in parse(TARGETS)]
    assert names == ["h100", "groq", "hybrid/1+1", "hybrid/2+1"]
    assert custom.parse(tomllib.loads(FORMAT), "mine.toml").path == "/generate"


def test_the_tables_are_whole():
    assert sorted(column("type")) == sorted([*WIRES, "mine.toml", "auto"])
    assert sorted(column("protocol")) == sorted(PROTOCOLS)


def test_every_key_is_named():
    assert [key for key in KEYS if not re.search(rf"\b{key}\b", TEXT)] == []
