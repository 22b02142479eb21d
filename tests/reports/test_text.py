"""What is printed, as golden files: `PHASELOAD_GOLDEN=1 pytest tests/reports/test_text.py` writes them anew."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from itertools import combinations
from math import inf
from pathlib import Path

import pytest
from rich.console import Console

from reports.analysis import leaders, summary
from reports.analysis.comparison import Comparison, GivenLengths, Interval, Ratio, Says, Word, compare
from reports.analysis.quantiles import Quantile
from reports.analysis.summary import Summary, summarise
from reports.analysis.validity import Status, Validity
from reports.render import findings, text
from reports.store.run_folder import Run, open_run
from tests.reports import made

VALID = Validity(Status.VALID, ())
GOLDEN = Path(__file__).parent / "golden"


def same(name: str, said: str) -> None:
    path = GOLDEN / name
    said = "\n".join(line.rstrip() for line in said.splitlines()) + "\n"
    if os.environ.get("PHASELOAD_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()


def printed(width: int, summary: Summary) -> str:
    out = io.StringIO()
    text.print_summary(
        summary, Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    )
    return out.getvalue()


def test_the_verdict_table(summed: Summary) -> None:
    same("summary.txt", printed(120, summed))


def test_at_eighty_columns_e2e_and_tokens_give_way(summed: Summary) -> None:
    same("summary-narrow.txt", printed(80, summed))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_figure_or_head_is_cut_at_any_width(summed: Summary, width: int) -> None:
    table = printed(width, summed).partition("(milliseconds")[2].partition("fastest")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert not any("…" in line for line in table)
    assert "TTFT p50" in "".join(table)
    assert ("TPOT p99" in "".join(table)) == (width >= 60)


def test_a_long_name_is_cut_and_a_long_title_is_not(summed: Summary) -> None:
    step = "3x and " + "more " * 20
    changed = [replace(result, target="t" * 90, step=step) for result in summed.results]
    said = printed(80, replace(summed, results=changed))
    assert step in said
    assert "ttttttttttttttttttt…   " in said


def test_too_few_samples_stand_beneath_the_dash(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=15)
    lines = printed(100, made.summarise(folder)).splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("h100"))
    n = lines[row].split()[1]
    assert lines[row + 1].split().count(f"n={n}") == 2
    assert lines[row].split()[4] == "-"


def test_no_gates_no_table() -> None:
    out = io.StringIO()
    text.print_verdicts([], VALID, Console(file=out))
    assert out.getvalue() == ""


def test_one_target_invalid(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), steps={"": 3.0}, seconds=30, late=0.06, blur=9_000_000)
    same("summary-invalid.txt", printed(120, made.summarise(folder)))


def test_gates(read_back: Run) -> None:
    slos = ["ttft p99 < 800ms", "@1x: tpot p99 < 5ms", "errors < 1%", "goodput > 8/s", "h100@1x: e2e p99.9 < 9s"]
    judged = summary.judge(summarise(read_back, {"ttft": 0.8}), slos)
    out = io.StringIO()
    text.print_verdicts(judged, VALID, Console(file=out, width=130))
    same("gates.txt", out.getvalue())


def test_gates_on_a_narrow_terminal_are_sentences(read_back: Run) -> None:
    judged = summary.judge(read_back, ["h100@1x: ttft p99 < 800ms", "h100@1x: e2e p99.9 < 9s"])
    out = io.StringIO()
    text.print_verdicts(judged, VALID, Console(file=out, width=60, force_terminal=True, color_system=None))
    assert out.getvalue().splitlines() == [
        "no verdict h100@1x: ttft p99 < 800ms, h100 at 1x: 167 ms, worth 491: run at least 57 s more",
        "no verdict h100@1x: e2e p99.9 < 9s, h100 at 1x: -, n=514, needs 2995",
        "NO VERDICT 0/2, run valid",
    ]


def median(value: float | None, high: float | None = 0.0) -> Quantile:
    """The p50 of a target; None is unbounded."""
    low, high = (inf if bound is None else bound for bound in (value, value if high == 0.0 else high))
    return Quantile(0.5, low, value is None, low, high, low, 40, 6, True, 40.0, False, 0.0, 1, low)


def ratio(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low or value, high or value)


def compared(
    base: str, other: str, metric: str, found: Interval | None, winner: str | None, like: bool = True
) -> Comparison:
    """Two targets in a step, with one metric."""
    of_metric = (
        None
        if found is None
        else Ratio(40, found, 0.0, 0.0, winner, None, Says(Word.NO_DIFFERENCE), Says(Word.NO_VERDICT))
    )
    return Comparison(base, other, "1x", 40, 0, 0, GivenLengths(1, 1, like), {metric: of_metric}, [], [])


def led(medians: dict[str, Quantile], pairs: dict[tuple[str, str], tuple[Interval, str | None]]) -> str:
    """The leader's line of one step, as it is printed, for TTFT."""
    comparisons = [compared(*both, "ttft", found, winner) for both, (found, winner) in pairs.items()]
    return str(leaders.lead("1x", "ttft", medians, comparisons))


def test_whom_nobody_beats_is_not_level_with_the_first_for_it() -> None:
    medians = {"sgl": median(0.0079), "triton": median(0.016), "mine": median(0.0173)}
    pairs = {
        ("sgl", "triton"): (ratio(2.0), "sgl"),
        ("sgl", "mine"): (ratio(1.1, 0.9, 2.5), None),
        ("triton", "mine"): (ratio(1.0, 0.8, 1.2), None),
    }
    assert led(medians, pairs) == "sgl 7.90 ms, 2.0x ahead of triton"
    pairs["triton", "mine"] = (ratio(0.8), "mine")  # it beats that one, and still has the longer median
    assert led(medians, pairs) == "sgl 7.90 ms, 2.0x ahead of triton"
    medians["mine"] = median(0.010)
    assert led(medians, pairs) == "sgl and mine 7.90 ms, 1.25x ahead of triton"  # what is true of both
    pairs["sgl", "mine"] = (ratio(1.1, 0.9, 1.2), None)
    assert led(medians, pairs) == "sgl 7.90 ms, 2.0x ahead of triton"


def test_failed_targets_are_named_together_and_never_lead() -> None:
    dead = (Interval(None, None, None), "good")
    pairs = {
        ("good", "slow"): (ratio(2.0), "good"),
        ("good", "s429"): dead,
        ("good", "s498"): dead,
        ("good", "half"): (ratio(0.8, 0.4, 3.0), None),
        ("slow", "half"): (ratio(0.4), "half"),
    }
    odd = {"s429": median(None), "s498": median(None), "half": median(0.004, high=None)}
    live = {"good": median(0.005), "slow": median(0.01)}
    assert led(live | odd, pairs) == "good 5.00 ms, 2.0x ahead of slow (failed: s429, s498, half)"
    assert led({"good": median(0.005), "s429": median(None)}, pairs) == "good 5.00 ms (failed: s429)"
    assert led({"s429": median(None), "s498": median(None)}, {}) == "no leader (failed: s429, s498)"


def test_where_failures_decide_nothing_is_infinite(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU, replace(made.RACK, fails=1.0)), seconds=20)
    run = open_run(folder)
    judged = summary.judge(run, ["groqrack: ttft p50 < 1s"])
    out = io.StringIO()
    console = Console(file=out, width=140)
    text.print_verdicts(judged, VALID, console)
    text.print_comparison(compare(run), console)
    assert "162 failed: no bound" in out.getvalue() and "h100: groqrack failed too often" in out.getvalue()
    assert not re.search(r"∞|\binf|\bnan", out.getvalue())


def test_a_target_without_an_answer_has_failed_in_every_phase(tmp_path: Path) -> None:
    """Not "answers of different length": it gave none."""
    folder = made.run(tmp_path, (made.GPU, replace(made.RACK, fails=1.0), replace(made.HYBRID, fails=1.0)), seconds=20)
    summed = made.summarise(folder)
    whole = [row[4] for row in findings.comparison_rows(summed.comparison) if row[2].startswith("whole")]
    assert whole == ["not comparable: no request that both answered"] * 3
    for _, (found,) in leaders.matrix(summed):
        assert (found.leaders, found.failed, found.why) == (("h100",), ("groqrack", "gpu+groq"), "")


def test_an_odd_target_stands_aside() -> None:
    """Three that can be compared have a leader, whatever two others did."""
    names = ("fast", "slow", "slower", "chatty", "dumb")

    def pair(base: str, other: str) -> Comparison:
        found = None if "chatty" in (base, other) or "dumb" in (base, other) else ratio(2.0)
        return compared(base, other, "e2e", found, base, like="chatty" not in (base, other))

    medians = {name: median(1.0 + at) for at, name in enumerate(names)}
    found = leaders.lead("1x", "e2e", medians, [pair(*both) for both in combinations(names, 2)])
    assert (found.leaders, found.behind, set(found.aside)) == (("fast",), "slow", {"chatty", "dumb"})
    assert "without chatty, dumb: " in str(found)
    two = {name: medians[name] for name in ("fast", "chatty")}
    found = leaders.lead("1x", "e2e", two, [pair("fast", "chatty")])
    assert str(found) == "not comparable: the targets gave answers of different length"


def test_leads(summed: Summary) -> None:
    lines = [f"{phase}: {lead.step}: {lead}" for phase, leads in leaders.matrix(summed) for lead in leads]
    same("leads.txt", "\n".join([*lines, *findings.sentences(summed)]))
    assert leaders.flips(leaders.leads(summed, "e2e")) == []  # the overloaded lost no comparison


def test_flips() -> None:
    each = leaders.Lead
    leads = [each("1x", ("a", "b")), each("2x", ("c",), overloaded=("b",)), each("3x", ()), each("4x", ("c", "d")),
             each("5x", ("a",), overloaded=("c", "d"))]  # fmt: skip
    assert leaders.flips(leads) == [leaders.Flip("2x", ("a",), ("c",))]


def test_html_fragments(report: Path) -> None:
    page = report.read_text()
    fragments = re.findall(r'<section class="answers">.*?</section>|<div class="pair">.*?</table>', page, re.DOTALL)
    same("fragments.html", "\n".join(fragments[:2]))


def test_refusals_are_told_apart_from_failures(summed: Summary) -> None:
    counts = replace(
        summed.results[0].counts, counted=50, requests=50, failed=8, admitted=0.9, unsent=7,
        outcomes={"ok": 42, "rate_limited": 5, "timeout": 3},
    )  # fmt: skip
    changed = replace(summed, results=[replace(summed.results[0], counts=counts)])
    said = list(findings.notes(changed))
    assert any("90.0% admitted: 5 of 50 requests were refused for their rate; in perc" in line for line in said)
    assert any("requests had no turn before the end" in line for line in said)
    assert "  3 + 5 refused  " in printed(120, changed)


@pytest.mark.parametrize(
    ("failed", "refused", "said"), [(0, 0, "0"), (8, 0, "8"), (8, 5, "3 + 5 refused"), (1200, 1200, "1,200 refused")]
)
def test_failures(summed: Summary, failed: int, refused: int, said: str) -> None:
    outcomes = {"rate_limited": refused} if refused else {}
    assert findings.failures(replace(summed.results[0].counts, failed=failed, outcomes=outcomes)) == said
