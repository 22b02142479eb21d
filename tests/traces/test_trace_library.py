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
