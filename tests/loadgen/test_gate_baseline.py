"""`phaseload gate --baseline` on simulated endpoints in virtual time: a regression is found, equal ones pass, unlike
runs are refused. And what a run keeps of the slo.toml that it was given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml

from loadgen import simulations
from loadgen.options import Load, RunOptions
from reports.analysis.summary import judge, own_gates
from reports.store import run_json
from reports.store.run_folder import open_run
from targets.simulated.build import SimulatedTarget
from tests.commands import phaseload

H100 = "h100"
# All of it slower by 10.5 %, and TTFT p50, which queues, by 15 %.
SLOWER = "h100,peak=8.95e14,bandwidth=3.03e12,c0=0.00298,c1=5.86e-5"
LOAD = Load(duration=200.0, warmup=20.0, max_context=4096)

SLO = """
goodput = "ttft:800ms tpot:40ms"

[[gate]]
name = "short prompts are quick"
slo = "ttft p50 < 800ms"
where = "prompt_tokens <= 1024"

[[gate]]
slo = "t: goodput > 95%"

[baseline]
run = "before"
max_regress = ["ttft p50 10%", "tpot p50 30% where output_tokens > 64"]
"""


def record(folder: Path, target: str, load: Load = LOAD, **options: object) -> Path:
    simulated = [SimulatedTarget.parse(target, name="t")]
    kept = RunOptions(out=folder, **options)  # type: ignore[arg-type]
    return simulations.record("azure-conv", simulated, load, kept, model="llama2-7b")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "slo.toml").write_text(SLO)
    record(folder / "before", H100)
    record(folder / "equal", H100, slo_file=folder / "slo.toml")
    record(folder / "slower", SLOWER)
    return folder


def asked(runs: Path, run: str, *words: str) -> tuple[int, list[dict[str, object]], Path]:
    junit = runs / f"{run}.xml"
    done = phaseload("gate", run, *words, "--junit", junit, "--markdown", f"{run}.md", "--json", cwd=runs)
    assert not done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode
    return done.returncode, told["baseline"]["verdicts"], junit


def test_a_regression_of_15_percent_is_found(runs: Path) -> None:
    code, [ttft, tpot], junit = asked(runs, "slower", "--slo-file", "slo.toml")
    assert (code, ttft["result"], tpot["result"]) == (1, "fail", "pass")
    assert ttft["figure"] == pytest.approx(0.15, abs=0.03)
    assert ttft["after"] / ttft["before"] - 1 == pytest.approx(0.15, abs=0.02)
    assert 0.10 < ttft["low"] < 0.15 < ttft["high"] < 0.20
    [suite] = JUnitXml.fromfile(str(junit))
    assert [type(result) for case in suite for result in case.result] == [Failure]
    said = (runs / "slower.md").read_text()
    assert said.startswith("### phaseload: FAIL 3/4, run valid") and "Against `before`, run valid:" in said


def test_two_equal_endpoints_pass(runs: Path) -> None:
    code, [ttft, tpot], _ = asked(runs, "equal", "--slo-file", "slo.toml")
    assert (code, ttft["result"], tpot["result"]) == (0, "pass", "pass")
    assert 0 < tpot["n"] < ttft["n"]


def test_the_command_line_goes_before_the_file(runs: Path) -> None:
    words = ("--slo-file", "slo.toml", "--baseline", "slower", "--max-regress", "t: ttft p50 1%")
    code, [strict, ttft, tpot], _ = asked(runs, "equal", *words)
    assert (code, strict["result"], ttft["result"], tpot["result"]) == (0, "pass", "pass", "pass")
    assert ttft["figure"] < 0


def test_unlike_runs_are_refused_with_what_differs(runs: Path, tmp_path: Path) -> None:
    record(tmp_path / "longer", H100, Load(duration=220.0, warmup=20.0, max_context=4096))
    done = phaseload("gate", tmp_path / "longer", "--baseline", runs / "before", "--max-regress", "ttft p50 10%")
    assert done.returncode == 2
    assert "the runs differ in trace" in done.stderr and "trace, 200 s and trace, 220 s" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--max-regress", "ttft p50 10%"), "--max-regress: needs a run to compare with (add --baseline runs/LAST)"),
        (("--baseline", "before"), "--baseline: what may regress, and how far, is missing"),
        (("--baseline", "before", "--max-regress", "ttft p50"), "--max-regress, column 9: not a regression"),
        (("--baseline", "nowhere", "--max-regress", "ttft p50 10%"), "nowhere: no such run"),
        (("--baseline", "before", "--max-regress", "x: ttft p50 10%"), "there are t@simulate"),
        (("--slo-file", "missing.toml"), "missing.toml: can't be read"),
    ],
)
def test_what_cant_be_compared_is_one_line(runs: Path, words: tuple[str, ...], expected: str) -> None:
    done = phaseload("gate", "slower", *words, cwd=runs)
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr


def test_an_invalid_baseline_decides_nothing(runs: Path, tmp_path: Path) -> None:
    record(tmp_path / "before", H100)
    facts = json.loads((tmp_path / "before" / "run.json").read_text())
    (tmp_path / "before" / "run.json").write_text(json.dumps(facts | {"ended": "running"}))
    words = ("--baseline", str(tmp_path / "before"), "--max-regress", "ttft p50 10%", "--slo", "ttft p50 < 9s")
    code, [ttft], junit = asked(runs, "slower", *words)
    assert (code, ttft["result"]) == (3, "invalid")
    [suite] = JUnitXml.fromfile(str(junit))
    assert [[type(result) for result in case.result] for case in suite] == [[], [Error]]
    assert "the run never ended" in list(suite)[1].result[0].text


def test_rounds_are_asked_together_and_a_lost_one_is_named(tmp_path: Path) -> None:
    short = Load(duration=40.0, warmup=5.0, max_context=4096)
    for name, target in (("before", H100), ("after", SLOWER)):
        simulated = [SimulatedTarget.parse(target, name="t")]
        simulations.record("azure-conv", simulated, short, RunOptions(out=tmp_path / name), model="llama2-7b", rounds=3)
    facts = json.loads((tmp_path / "after" / "round-2" / "run.json").read_text())
    (tmp_path / "after" / "round-2" / "run.json").write_text(json.dumps(facts | {"ended": "worker_lost"}))
    words = (
        "--slo",
        "ttft p50 < 1s where prompt_tokens > 500",
        "--baseline",
        "before",
        "--max-regress",
        "ttft p50 60%",
    )
    done = phaseload("gate", "after", *words, "--json", "--junit", "o.xml", "--markdown", "o.md", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["rounds"]["counted"] == [1, 3] and list(told["rounds"]["lost"]) == ["2"]
    verdicts = [*told["verdicts"], *told["baseline"]["verdicts"]]
    assert [verdict["rounds"] for verdict in verdicts] == [2, 2]
    said = (tmp_path / "o.md").read_text()
    assert "2 of 3 rounds count" in said and "round 2 is lost" in said and " in 2 rounds" in said
    [suite] = JUnitXml.fromfile(str(tmp_path / "o.xml"))
    assert "2 of 3 rounds count" in [each.value for each in suite.properties()]


def test_a_run_carries_the_gates_of_its_file(runs: Path) -> None:
    facts = run_json.read(runs / "equal")
    assert facts.slo == (
        "ttft p50 < 800ms where prompt_tokens <= 1024 # short prompts are quick", "t: goodput > 95%",
    )  # fmt: skip
    assert facts.goodput == ("ttft:800ms tpot:40ms",)
    run = open_run(runs / "equal")
    [quick, good] = judge(run, own_gates(run))
    assert (quick.gate.name, quick.decision, good.decision) == ("short prompts are quick", "pass", "pass")
    done = phaseload("gate", runs / "equal")
    assert done.returncode == 0 and "short prompts are quick" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("replay", "azure-conv", "--url", "http://127.0.0.1:9", "-m", "m"),
        ("bakeoff", "azure-conv", "--target", "a=http://127.0.0.1:9", "-m", "m"),
        ("capacity", "azure-conv", "--url", "http://127.0.0.1:9", "-m", "m"),
        ("simulate", "azure-conv", "--target", "h100"),
        ("gate", "run"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_judges_takes_the_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "slo.toml").write_text(SLO.replace("prompt_tokens", "class"))
    done = phaseload(*words, "--slo-file", "slo.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "slo.toml:7, column where: not a slice: expected what requests can be sliced by: prompt" in done.stderr


def test_a_sweep_keeps_no_slices(tmp_path: Path) -> None:
    words = ("--target", "h100", "--sweep", "speedup=1,2", "--slo", "ttft p50 < 1s where turn = 0")
    done = phaseload("simulate", "azure-conv", *words, cwd=tmp_path)
    assert done.returncode == 2 and "a sweep keeps no slices" in done.stderr
