"""The command line's front door: foreign packages, version, help, speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.cli import app

HEAVY = ("locust", "gevent", "numpy", "pandas", "pyarrow", "matplotlib", "aiohttp")


def run(*arguments: str, cwd: Path | None = None, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-P", "-m", "loadgen", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_our_own_installation_passes() -> None:
    app.check_rooms()


def test_a_foreign_room_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").write_text("")
    answer = run("--version", path=tmp_path)
    assert answer.returncode == 2
    assert "'reports'" in answer.stderr
    assert str(tmp_path) in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_folder_named_like_a_room_does_no_harm(tmp_path: Path) -> None:
    for room in app.ROOMS:
        (tmp_path / room).mkdir()
    command = [sys.executable, "-m", "loadgen", "--version"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stdout.split()[0]) == (0, "phaseload")


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    probe = f"""
import sys
sys.argv = ["phaseload", "--help"]
from loadgen.cli.app import main
try:
    main()
except SystemExit:
    pass
print("HEAVY", [module for module in {HEAVY} if module in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-P", "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    assert "HEAVY []" in answer.stdout
    for command in ("replay", "bakeoff", "serve"):
        assert command in answer.stdout


@pytest.mark.parametrize("command", ["replay", "bakeoff"])
def test_every_command_has_examples(command: str) -> None:
    answer = run(command, "--help")
    assert answer.returncode == 0
    assert f"phaseload {command} " in answer.stdout


@pytest.mark.parametrize("command", [("serve", "--list", "nonsense", "more"), ("trace", "info", "a.csv", "b.csv")])
def test_arguments_that_nobody_takes_are_refused(command: tuple[str, ...]) -> None:
    answer = run(*command)
    assert answer.returncode == 2
    assert command[-1] in answer.stderr
