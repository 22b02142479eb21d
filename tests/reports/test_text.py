"""What is printed, as golden files: `PHASELOAD_GOLDEN=1 pytest tests/reports/test_text.py` writes them anew."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from reports import gates, lead, summary, text
from tests.reports import made

GOLDEN = Path(__file__).parent / "golden"


def same(name: str, said: str) -> None:
    path = GOLDEN / name
    said = "\n".join(line.rstrip() for line in said.splitlines()) + "\n"
    if os.environ.get("PHASELOAD_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()


def printed(width: int, found: dict) -> str:
    out = io.StringIO()
    text.print_summary(
        found, Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    )
    return out.getvalue()


def test_the_verdict_table(summed: dict[str, Any]) -> None:
    same("summary.txt", printed(120, summed))


def test_a_narrow_terminal_gets_the_figures_without_intervals(summed: dict[str, Any]) -> None:
    said = printed(96, summed)
    same("summary-narrow.txt", said)
    assert "…" not in said


def test_one_target_invalid(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), steps={"": 3.0}, seconds=30, late=0.06, blur=9_000_000)
    same("summary-invalid.txt", printed(120, summary.summarise(folder)))


def test_gates(bakeoff: Path) -> None:
    asked = ["ttft p99 < 800ms", "@1x: tpot p99 < 5ms", "errors < 1%", "goodput > 8/s", "h100@1x: e2e p99.9 < 9s"]
    verdicts = gates.judge(bakeoff, [gates.parse(one) for one in asked], {"ttft": 0.8})
    out = io.StringIO()
    text.print_verdicts(verdicts, Console(file=out, width=130))
    same("gates.txt", out.getvalue())


def test_leads(summed: dict[str, Any]) -> None:
    found = summed
    said = [f"{phase}: {one.step}: {one}" for phase, leads in lead.matrix(found) for one in leads]
    same("leads.txt", "\n".join([*said, *lead.sentences(found)]))
    (flip,) = lead.flips(lead.leads(found, "e2e"))
    assert flip[1].leaders == ("h100",)


def test_html_fragments(report: Path) -> None:
    page = report.read_text()
    fragments = re.findall(r'<section class="answers">.*?</section>|<div class="pair">.*?</table>', page, re.DOTALL)
    same("fragments.html", "\n".join(fragments[:2]))
