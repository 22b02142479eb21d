"""The examples run as they are, against a simulated endpoint or a quick one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from junitparser import JUnitXml

from tests.loadgen.running import endpoint

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": PYTHONPATH, "PATH": PATH, **environment}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with endpoint() as server:
        yield server.url


def test_the_library(tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / "library.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "errors < 20%: pass" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_locustfile(tmp_path: Path, url: str) -> None:
    locust = (sys.executable, "-P", "-m", "locust", "-f", EXAMPLES / "locustfile.py", "--headless", "--host", url)
    done = run(*locust, "--run-time", "2s", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: a busy machine spoils the measurement
    [summary] = tmp_path.glob("runs/*/summary.json")
    assert summary.is_file()


@pytest.mark.parametrize(
    ("gate", "codes", "more"), [("ttft p50 < 10s", (0, 3), ()), ("ttft p50 < 1us", (1, 3), ("--no-report",))]
)
def test_the_gate_of_ci(tmp_path: Path, url: str, gate: str, codes: tuple[int, ...], more: tuple[str, ...]) -> None:
    slo = (EXAMPLES / "slo.toml").read_text().replace("ttft p50 < 10s", gate)
    (tmp_path / "slo.toml").write_text(slo)
    step = (EXAMPLES / "ci-gate.sh", url, "llama3-8b", "--speedup", "10", *more)
    done = run(*step, cwd=tmp_path, DURATION="1", WARMUP="0.1", SLO="slo.toml", GITHUB_ACTIONS="true")
    assert done.returncode in codes, done.stdout + done.stderr
    assert (tmp_path / "load-test" / "report.html").is_file() == (not more)
    [suite] = JUnitXml.fromfile(str(tmp_path / "load-test.xml"))
    assert suite.tests == slo.count("[[gate]]")
    assert next(iter(suite)).name == f"chat feels instant: {gate}"
    assert (tmp_path / "load-test.md").read_text().startswith("### phaseload: ")
    assert "::notice title=phaseload::" in done.stdout
