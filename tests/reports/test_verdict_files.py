"""What `phaseload gate` writes for others to read: JUnit, read back by junitparser; Markdown, as a golden file;
GitHub's commands, taken apart as its runner does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, TestSuite

from loadgen.cli.options import print_json
from reports.analysis.gate_grammar import Gate, parse
from reports.analysis.gates import Decision, Verdict
from reports.analysis.judgement import Judgement, Regression
from reports.analysis.summary import Summary, judge, summarise
from reports.analysis.validity import Reason, Status
from reports.render import findings, github
from reports.render.junit import junit
from reports.render.markdown import LONGEST, code, markdown
from reports.render.text import printable
from reports.store.run_folder import Run, open_run
from tests.commands import phaseload
from tests.reports import made
from tests.reports.test_text import same

EVIL = "a|b\\|c `x` <img src=x> @everyone #1 https://evil.example $x$\r\n::error::hacked\x1b[31m\x00\ud800"


def verdict(text: str, decision: Decision, target: str = "h100", step: str = "1x", **more: object) -> Verdict:
    return replace(Verdict(parse(text), target, step, decision, 0.3214, 514, 0.3, 0.35), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judged(read_back: Run, summed: Summary) -> Judgement:
    """A judgement with every decision in it, and names from an enemy."""
    evil = replace(parse("ttft p99 < 800ms"), name=EVIL)
    verdicts = [
        verdict("ttft p99 < 800ms # chat feels instant", Decision.PASS, effective=124.4),
        verdict("ttft p99 < 300ms where prompt_tokens > 4096", Decision.FAIL, target="groqrack", effective=514.0),
        verdict("errors < 1%", Decision.NO_VERDICT, figure=0.004, low=0.001, high=0.02, effective=88.0,
                note="2 of 514; worth 88: run about 9 minutes more, or longer"),
        verdict("ttft p99.9 < 1s", Decision.NO_VERDICT, figure=None, low=None, high=None, note="n=514, needs 2995"),
        Verdict(evil, EVIL, EVIL, Decision.FAIL, 1.0, 9, note="9 of 9"),
    ]  # fmt: skip
    allowed = Gate("ttft p50 10%", "ttft", "p50", "<=", 0.1, "%")
    worse = Regression(allowed, "h100", "1x", Decision.FAIL, 0.15, 514, 0.121, 0.18, before=0.1, after=0.115)
    before = replace(summed, run=replace(summed.run, folder="runs/last"))
    command = "phaseload gate runs/new --slo 'ttft p99 < 800ms' ```"
    return Judgement(read_back, summed, verdicts, [worse], before, command)


def test_junit_is_what_an_independent_parser_reads(judged: Judgement, tmp_path: Path) -> None:
    file = tmp_path / "out.xml"
    file.write_bytes(junit(judged))
    [suite] = JUnitXml.fromfile(str(file))
    assert isinstance(suite, TestSuite)
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("made", 6, 3, 2, 0)
    assert suite.timestamp == judged.run.facts.created
    assert {p.name: p.value for p in suite.properties()}["trace fingerprint"] == "0123456789abcdef"
    kinds = [[type(result) for result in case.result] for case in suite]
    assert kinds == [[], [Failure], [Error], [Error], [Failure], [Failure]]
    passed, failed, undecided, thin, evil, worse = suite
    assert (passed.classname, passed.name) == ("h100 at 1x", "chat feels instant: ttft p99 < 800ms")
    assert "figure: 321 ms\ninterval: 300–350 ms\nn: 514, worth 124" in passed.system_out
    assert failed.result[0].message == "FAIL: 321 ms (300–350 ms); n=514"
    assert failed.result[0].type == "FAIL"
    assert "gate: ttft p99 < 300ms where prompt_tokens > 4096" in failed.result[0].text
    assert undecided.result[0].type == "NO VERDICT"
    assert "run about 9 minutes more" in undecided.result[0].message
    assert thin.result[0].message == "NO VERDICT: no figure; n=514; n=514, needs 2995"
    assert evil.classname == printable(f"{EVIL} at {EVIL}") and "\x1b" not in evil.name
    assert worse.result[0].message == "FAIL: 15.0% (12.1%–18.0%); n=514"


def test_junit_of_an_invalid_run_says_why(tmp_path: Path) -> None:
    run = open_run(made.run(tmp_path / "run", (made.GPU,), seconds=45, late=0.2))
    summary = summarise(run)
    (tmp_path / "out.xml").write_bytes(junit(Judgement(run, summary, judge(summary, "ttft p99 < 2s"))))
    [suite] = JUnitXml.fromfile(str(tmp_path / "out.xml"))
    [case] = suite
    assert isinstance(case.result[0], Error) and case.result[0].type == "INVALID"
    [reason, *_] = summary.validity.reasons
    assert reason.text in case.result[0].text


@given(st.text(max_size=40), st.text(max_size=40))
def test_junit_takes_any_text(read_back: Run, summed: Summary, target: str, name: str) -> None:
    gate = replace(parse("errors < 1%"), name=name)
    judgement = Judgement(read_back, summed, [Verdict(gate, target, "", Decision.FAIL, 1.0, 9, note=name)])
    [suite] = JUnitXml.fromstring(junit(judgement))
    [case] = suite
    normal = re.sub(r"\s", " ", printable(findings.gate(judgement.verdicts[0])))  # an attribute's line break is a blank
    assert re.sub(r"\s", " ", case.name) == normal


def test_the_comment(judged: Judgement) -> None:
    same("gate.md", markdown(judged))


def test_the_comment_of_an_invalid_run(read_back: Run, summed: Summary) -> None:
    reason = Reason(Status.INVALID, EVIL, target=EVIL, remedy="use `more` processes")
    validity = replace(summed.validity, status=Status.INVALID, reasons=(reason,))
    said = markdown(Judgement(read_back, replace(summed, validity=validity), []))
    assert said.startswith("### phaseload: no gate, run invalid\n\n- invalid: <code>")
    assert "<img" not in said


def test_a_long_comment_is_cut_behind_what_failed(read_back: Run, summed: Summary) -> None:
    verdicts = [verdict("errors < 1%", Decision.PASS, target=f"t{i}") for i in range(300)]
    verdicts.append(verdict("errors < 1%", Decision.FAIL, target="the one"))
    said = markdown(Judgement(read_back, summed, verdicts))
    rows = [line for line in said.splitlines() if line.startswith("| `errors")]
    assert len(rows) == LONGEST and "`the one`" in rows[0]
    assert f"{301 - LONGEST} more rows, 0 of them not passed" in said


@given(st.text())
def test_code_is_one_cell_and_one_span(text: str) -> None:
    said = code(text)
    assert "|" not in said and "\n" not in said and "\r" not in said
    inner = said.removeprefix("`").removesuffix("`")
    assert (
        said == ""
        or (said[0] == said[-1] == "`" and "`" not in inner and "\\" not in inner)
        or not re.search(r"[`\\@:<>*_\[\]$~]|&(?!#\d+;)", said.removeprefix("<code>").removesuffix("</code>"))
    )


def runner_reads(line: str) -> tuple[str, dict[str, str], str]:
    """A command as GitHub's runner takes it apart: its name, its properties, its text (ActionCommand.TryParseV2)."""
    match = re.fullmatch(r"::(\w+)(?: ([^:]*))?::(.*)", line)
    assert match
    properties = dict(part.split("=", 1) for part in (match[2] or "").split(",") if part)

    def data(text: str) -> str:
        return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")

    values = {name: data(value.replace("%3A", ":").replace("%2C", ",")) for name, value in properties.items()}
    return match[1], values, data(match[3])


def test_githubs_commands(judged: Judgement) -> None:
    lines = list(github.commands(judged))
    assert all("\n" not in line and "\r" not in line for line in lines)
    read = [runner_reads(line) for line in lines]
    assert [kind for kind, *_ in read] == ["error", "error", "error", "warning", "warning", "notice"]
    assert [properties["title"] for _, properties, _ in read] == [
        "ttft p99 < 300ms where prompt_tokens > 4096", printable(EVIL), "regression: ttft p50 10%", "errors < 1%",
        "ttft p99.9 < 1s", "phaseload",
    ]  # fmt: skip
    assert read[0][2] == "groqrack at 1x: FAIL: 321 ms (300–350 ms); n=514"
    assert read[2][2] == "h100 at 1x: FAIL: 15.0% (12.1%–18.0%); n=514"
    assert read[-1][2] == "FAIL 1/6, run valid"


SLO = """
goodput = "ttft:800ms"
[[gate]]
name = "fast"
slo = "ttft p50 < 800ms"
where = "prompt_tokens > 100"
[[gate]]
slo = "goodput > 90%"
[[gate]]
slo = "e2e p50 < 1ms"
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two targets."""
    return made.run(tmp_path_factory.mktemp("pair") / "run", (made.GPU, made.RACK), steps={"1x": 9.0}, seconds=45)


def test_the_command_writes_all_of_them(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "slo.toml").write_text(SLO)
    (tmp_path / "summary.md").write_text("before\n")
    words = ("--slo-file", "slo.toml", "--junit", "out.xml", "--markdown", "out.md", "--github")
    done = phaseload("gate", pair, *words, cwd=tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert done.returncode == 1, done.stdout + done.stderr
    [suite] = JUnitXml.fromfile(str(tmp_path / "out.xml"))
    assert (suite.tests, suite.failures) == (6, 2)
    said = (tmp_path / "out.md").read_text()
    assert said.startswith("### phaseload: FAIL ") and "phaseload gate" in said
    assert (tmp_path / "summary.md").read_text() == "before\n" + said
    first, *rest = done.stdout.splitlines()
    token = first.removeprefix("::stop-commands::")
    shielded, commands = rest[: rest.index(f"::{token}::")], rest[rest.index(f"::{token}::") + 1 :]
    assert len(token) == 32 and "The run is valid." in shielded
    assert all(line.startswith("::error title=") for line in commands[: suite.failures])
    assert commands[-1].startswith("::notice title=phaseload::FAIL ")


def test_json_has_the_same_verdicts_and_nothing_else_on_stdout(pair: Path, tmp_path: Path) -> None:
    done = phaseload("gate", pair, "--slo", "tpot p50 < 2s # quick", "--json", "--github", "--junit", tmp_path / "x")
    told = json.loads(done.stdout)
    [suite] = JUnitXml.fromfile(str(tmp_path / "x"))
    names = [(f"{v['target']} at {v['step']}", f"{v['name']}: {v['gate']}") for v in told["verdicts"]]
    assert [(case.classname, case.name) for case in suite] == names
    assert "::notice title=phaseload::PASS 2/2" in done.stderr


def test_json_holds_no_command_of_the_older_form(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"target": "a ##[set-output name=x]y"}
    print_json(facts)
    printed = capsys.readouterr().out
    assert "##[" not in printed and json.loads(printed) == facts


def test_a_file_that_cant_be_written_is_one_line(pair: Path, tmp_path: Path) -> None:
    done = phaseload("gate", pair, "--slo", "errors < 5%", "--junit", tmp_path / "no" / "out.xml")
    assert done.returncode == 2
    assert done.stderr == f"phaseload: {tmp_path / 'no' / 'out.xml'}: can't be written: No such file or directory\n"
