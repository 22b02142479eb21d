"""Where tests find traces: excerpts in tests/data/traces, and whole files in the folder that PHASELOAD_TRACES names."""

import os
from pathlib import Path

import pytest

EXCERPTS = Path(__file__).parent / "data" / "traces"
FOLDER = Path(os.environ.get("PHASELOAD_TRACES") or "/PHASELOAD_TRACES is not set")
needs_public_traces = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="PHASELOAD_TRACES names no folder of public traces"
)


def public_trace(name: str) -> str:
    """The path of a public trace; skips the test where it isn't there."""
    if not (FOLDER / name).exists():
        pytest.skip(f"needs the public trace {name} in the folder that PHASELOAD_TRACES names")
    return str(FOLDER / name)
