"""The README: its links lead somewhere, its commands exist."""

import re
from pathlib import Path

import pytest

from loadgen.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_its_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).is_file()


def test_its_commands_exist() -> None:
    known = {name for name, *_ in COMMANDS}
    used = set(re.findall(r"phaseload ([a-z]+)\b", "\n".join(re.findall(r"^    .*$", README, re.MULTILINE))))
    assert used
    assert used <= known
