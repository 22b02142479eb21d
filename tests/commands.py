"""`phaseload` in this process: what `python -m loadgen` does, prints and returns, without an interpreter of its own."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from loadgen.cli import app


def phaseload(
    *words: str | Path, cwd: Path | None = None, stdin: str = "", **environment: str
) -> CompletedProcess[str]:
    """Its exit code, and what it wrote."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    arguments = list(map(str, words))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["phaseload", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        for name, value in environment.items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            app.main()
        out.seek(0)
    return CompletedProcess(arguments, int(ended.value.code or 0), out.read(), err.getvalue())
