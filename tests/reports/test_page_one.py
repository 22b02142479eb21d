"""Page one: one object, shown alike by the terminal, by the page and by summary.json."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reports import open_run, summarise
from reports.analysis import page_one
from reports.analysis.page_one import PageOne
from reports.render import page_one as front
from reports.render import text
from tests.reports import made
from tests.reports.made import GPU, RACK


@pytest.fixture(scope="module")
def page(rounds: Path) -> PageOne:
    return summarise(open_run(rounds.parent)).page_one


def printed(page: PageOne, width: int = 200) -> str:
    out = io.StringIO()
    text.print_page_one(page, Console(file=out, width=width, force_terminal=True, color_system=None))
    return out.getvalue()


def shown(path: Path) -> str:
    """The front of a page as text."""
    front_part = re.search(r'<article class="front">.*?</article>', path.read_text(), re.DOTALL)
    assert front_part is not None
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", front_part[0])).split())


def test_terminal_page_and_json_say_the_same(rounds: Path, page: PageOne) -> None:
    stored = json.loads((rounds.parent / "summary.json").read_bytes())["page_one"]
    on_terminal, on_page = " ".join(printed(page).split()), shown(rounds)
    assert page.verdict == f"{stored['decision'].upper()} {stored['passed']}/{stored['gates']}"
    assert len(page.verdicts) == stored["gates"] == len(made.SLO) * 2 * 2
    assert [str(verdict.decision) for verdict in page.verdicts] == [each["decision"] for each in stored["verdicts"]]
    assert stored["passed"] == [each["decision"] for each in stored["verdicts"]].count("pass")
    facts = [fact["text"] for fact in (*stored["trust"], *stored["not_measured"])]
    for words in (page.verdict, f"run {stored['state']}", *stored["sentences"], *facts):
        assert words in on_terminal, words
        assert words in on_page, words
    for line in front.lines(page):
        for cell in line.cells:
            assert cell.figure in on_terminal and cell.figure in on_page
            assert cell.beneath in on_terminal and cell.beneath in on_page
    names = [target["target"] for target in stored["targets"]]
    assert names == ["h100", "groqrack"]
    assert [target["ttft_p50"]["value"] for target in stored["targets"]] == [t.ttft_p50.value for t in page.targets]


def test_it_stands_on_the_base_load_and_says_how_far_each_target_goes(page: PageOne) -> None:
    assert (page.step, page.load) == ("base", "8 requests/s")
    gpu, rack = page.targets
    failing = {(v.target, v.step) for v in page.verdicts if v.decision == "fail"}
    assert ("groqrack", "2x") in failing  # its lanes are too few
    assert rack.passes != "2x, 20 requests/s"
    assert any(sentence.startswith("groqrack:") and "fails" in sentence for sentence in page.sentences)
    assert gpu.rounds == rack.rounds == 2 and gpu.n > 300
    assert gpu.errors and not gpu.refused
    assert gpu.worst and gpu.worst.q == 0.5 and gpu.worst.ttft == gpu.ttft_p50.worst  # a round has too few for p99


@pytest.mark.parametrize(
    ("decisions", "highest"),
    [
        ({"base": "pass", "2x": "pass"}, "2x"),
        ({"base": "pass", "2x": "fail"}, "base"),
        ({"base": "fail", "2x": "pass"}, ""),  # what fails below proves nothing above
        ({"base": "no verdict", "2x": "pass"}, "2x"),
        ({"base": "pass", "2x": "no verdict"}, "base"),
        ({"base": "invalid", "2x": "invalid"}, ""),
    ],
)
def test_the_highest_load_that_passes_has_no_failing_one_below(
    page: PageOne, decisions: dict[str, str], highest: str
) -> None:
    from dataclasses import replace

    from reports.analysis.gates import Decision

    one = page.verdicts[0]
    verdicts = [replace(one, step=step, decision=Decision(word)) for step, word in decisions.items()]
    assert page_one._highest(verdicts, {"base": "base", "2x": "2x"}) == highest


def test_one_round_names_no_winner_of_the_tail(tmp_path: Path) -> None:
    page = summarise(open_run(made.run(tmp_path, (GPU, RACK), seconds=30))).page_one
    assert not page.decision and page.verdict == "no gate"
    assert any("No winner is named in the tail" in sentence for sentence in page.sentences)
    assert "tails" in {fact.about for fact in page.not_measured}
    assert all(target.worst is None and target.passes is None for target in page.targets)


def test_lost_rounds_gates_of_nothing_and_late_windows_take_from_the_trust(tmp_path: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["slo"] = ["nobody: ttft p50 < 1s"]

    folder = made.rounds(tmp_path, 3, targets=(GPU,), seconds=20.0, change=change)
    facts = json.loads((folder / "round-2/run.json").read_bytes())
    (folder / "round-2/run.json").write_text(json.dumps(facts | {"ended": "worker_lost"}))
    page = summarise(open_run(folder)).page_one
    doubts = {fact.text for fact in page.trust if fact.doubtful}
    assert "round 2 is lost: a worker was lost" in doubts
    assert "2 of 3 count" in {fact.text for fact in page.trust}
    [slo] = [fact.text for fact in page.not_measured if fact.about == "SLO"]
    assert "no such target" in slo and not page.verdicts
    assert page.targets[0].rounds == 2


def test_the_page_says_nothing_worse_of_a_hostile_run(hostile: Path) -> None:
    page = summarise(open_run(hostile)).page_one
    assert made.EVIL in {target.target for target in page.targets}
    assert "\x1b" not in printed(page) and "<script" not in (hostile / "report.html").read_text().lower()


def test_many_targets_stand_in_rows_of_as_many_as_fit(page: PageOne) -> None:
    from dataclasses import replace

    many = replace(page, targets=page.targets * 5)
    for width in (60, 80, 120):
        assert all(len(line) <= width for line in printed(many, width).partition("Why to")[0].splitlines()[8:])
