"""The documents: lines of 120 columns, files and modules that exist, hooks that are the checks of `make check`."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = "traces|targets|reports|loadgen"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/data/**/*.md")])
FILES = [
    str(path.relative_to(ROOT))
    for folder in (*ROOMS.split("|"), "tests", "bench", "docs", "examples")
    for path in (ROOT / folder).rglob("*")
    if "__pycache__" not in path.parts
]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text: str) -> str:
    """Without fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@pages
def test_lines_stay_within_120_columns(page: Path) -> None:
    lines = prose(page.read_text(encoding="utf-8")).splitlines()
    too_long = [line for line in lines if len(line) > 120 and not line.startswith("|") and "](" not in line]
    assert too_long == []


@pages
def test_the_files_that_it_names_exist(page: Path) -> None:
    """`folder/file.py`, `file.py` of any folder, `folder/`; NAME and * stand for anything."""
    spans = re.findall(r"`([^`\s]+)`", prose(page.read_text(encoding="utf-8")))
    named = [span for span in spans if re.fullmatch(rf"[\w./*-]+\.py|(?:{ROOMS}|tests|bench|examples)/[\w./*-]+", span)]
    missing = []
    for name in named:
        pattern = re.escape(name.rstrip("/")).replace(r"\*", "[^/]*")
        pattern = re.sub(r"\b[A-Z]{3,}\b", "[^/]*", pattern)
        if not any(re.fullmatch(rf"(?:.*/)?{pattern}", file) for file in FILES):
            missing.append(name)
    assert missing == []


@pages
def test_the_modules_that_it_names_exist(page: Path) -> None:
    """`room.module` and `room.module.name`: the module is a file, and the name stands in it."""
    text = prose(page.read_text(encoding="utf-8"))
    spans = {
        match for span in re.findall(r"`([^`]+)`", text) for match in re.findall(rf"\b(?:{ROOMS})(?:\.\w+)+", span)
    }
    names = sorted(span for span in spans if not span.endswith((".toml", ".md")))
    assert [name for name in names if not resolves(name)] == []


def resolves(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:end])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file():
                return all(re.search(rf"\b{part}\b", file.read_text(encoding="utf-8")) for part in parts[end:])
    return False


def test_the_files_that_name_the_first_tokens_limit_are_listed() -> None:
    paragraph = (ROOT / "docs/design.md").read_text().partition("`--first-token-timeout` is named in five")[2]
    listed = set(re.findall(r"`([^`]+\.py)`", paragraph.partition("\n\n")[0]))
    rooms = [file for file in FILES if file.endswith(".py") and file.partition("/")[0] in ROOMS.split("|")]
    assert listed == {file for file in rooms if "first_token_timeout" in (ROOT / file).read_text()}


def test_the_hooks_are_the_checks() -> None:
    tools = re.findall(r"entry: \.venv/bin/(\S+ ?\w*)", (ROOT / ".pre-commit-config.yaml").read_text())
    checks = re.findall(
        r"^\t\$\(BIN\)/(\S+ ?\w*)", (ROOT / "Makefile").read_text().partition("\ncheck:")[2], re.MULTILINE
    )
    assert [tool.strip() for tool in tools] == [check.strip() for check in checks[: len(tools)]]
    assert "repo: local" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_the_source_archive_holds_documents_and_tests() -> None:
    named = (ROOT / "MANIFEST.in").read_text().split()
    folders = {name.partition("/")[0] for name in FILES} - set(ROOMS.split("|"))
    assert folders | {page.name for page in ROOT.glob("*.md")} - {"README.md"} <= set(named)
