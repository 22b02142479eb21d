"""The room's public names: each is there, is what its home has, and none is imported before it is used."""

import pkgutil
import subprocess
import sys

import pytest

import traces


@pytest.mark.parametrize("name", traces.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert (getattr(traces, name).__doc__ or "").strip()


def test_no_public_name_is_a_module():
    assert not {module.name for module in pkgutil.iter_modules(traces.__path__)} & set(traces.__all__)


def test_importing_it_imports_nothing_heavy():
    code = "import sys, traces; traces.InputError; print({'numpy', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_what_it_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'open'"):
        _ = traces.open


ROWS = {"due": [0, 5], "prompt_tokens": [1, 2], "output_tokens": [3, 4]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"due": [5, 0]}, "column due: expected ascending instants"),
        ({"sesion": [1, 1]}, r"column sesion: no such column \(did you mean session\?\)"),
        ({"output_tokens": [3]}, "column output_tokens: 1 rows, but 2 of due"),
        ({"prompt_tokens": ["a", "b"]}, "column prompt_tokens: "),
    ],
)
def test_a_column_that_can_not_be_used_is_named(change, words):
    with pytest.raises(traces.InputError, match=words):
        traces.build(ROWS | change)


@pytest.mark.parametrize("column", ROWS)
def test_a_missing_column_is_named(column):
    with pytest.raises(traces.InputError, match=f"column {column}: is missing"):
        traces.build({name: values for name, values in ROWS.items() if name != column})


def test_a_range_that_ends_before_it_starts_is_refused():
    with pytest.raises(traces.InputError, match="only: expected prompt from low to high, got 5 to 1 tokens"):
        traces.only(traces.build(ROWS), prompt=(5, 1))
