"""Odd runs still make a summary and a page, without a warning."""

from __future__ import annotations

import io
import re
import warnings
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from reports.analysis.summary import save
from reports.render import html, plots, text
from reports.store import row_files, run_folder
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange


def row(index: int, tokens: tuple[int, ...] = (), **more: Any) -> Exchange:
    facts = {"index": index, "target": "t", "due": 0, "prompt_tokens": 5, "output_tokens": 5, **more}
    return make_exchange(**facts, token_at=array("q", tokens), token_events=array("i", [1] * len(tokens)))


def ok(index: int, tokens: tuple[int, ...], **more: Any) -> Exchange:
    return row(index, tokens, **{"outcome": Outcome.OK, "started": 10, "sent": 100, "done": 300, **more})


LATE = 2**60
RUNS = {
    "warm-up only": [row(i, counted=False) for i in range(5)],
    "a single request": [ok(0, (150,))],
    "no time passes": [ok(i, (0, 0), started=0, sent=0, done=0) for i in range(400)],
    "time runs backwards": [ok(i, (50, 40), done=0, usage_output=0) for i in range(40)],
    "one target never answers": [
        *(ok(i, (150, 240)) for i in range(40)),
        *(row(i, target="u", outcome=Outcome.TIMEOUT) for i in range(40)),
    ],
    "no step in common": [
        *(ok(i, (150, 240), step="a") for i in range(40)),
        *(row(i, target="u", step="b", outcome=Outcome.TIMEOUT) for i in range(40)),
    ],
    "absurd numbers": [
        ok(i, (2**62, 2**62 + 5), due=LATE, started=LATE, sent=LATE, done=2**62 + 9, usage_output=2**62,
           usage_prompt=2**62)
        for i in range(40)
    ],
    "more targets than colours": [
        ok(i, (i * 10**9 + 2000 * k, i * 10**9 + 4000 * k), target=f"target {k}", due=i * 10**9, sent=i * 10**9)
        for i in range(30)
        for k in range(1, 11)
    ],
}  # fmt: skip


@pytest.mark.parametrize(("end", "fewest", "most"), [(0.0, 1, 1), (1.0, 20, 22), (60.0, 60, 62), (4000.0, 400, 402)])
def test_the_timelines_bins(end: float, fewest: int, most: int) -> None:
    for start in (0.0, 0.3, 1e9 + 0.7):
        edges = plots.bins(start, start + end)
        assert fewest <= len(edges) - 1 <= most
        assert edges[0] <= start
        assert edges[-1] >= start + end
        assert np.all(np.diff(edges) > 0)


def test_a_short_run_that_failed_says_so_in_its_plots(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for index in range(10):
        due = index * 10**8
        times = {"started": due, "sent": due + 100, "done": due + 10**6}
        writer.append(row(index, due=due, outcome=Outcome.HTTP_ERROR, status=500, **times))
    writer.flush()
    run = run_folder.open_run(tmp_path)
    page = html.page([run], [save(run)]).read_text()
    assert page.count(">no answered request<") >= 4  # both CDFs, both accounts of phases
    assert page.count(">no or too few answered requests<") == 3
    drawn = plots.timeline("timeline", run.rows, {"t": 0}, []).svg
    curves = [path.count("L") for path in re.findall(r'<path d="([^"]*)" clip-path[^>]*var\(--t0\)', drawn)]
    assert len(curves) == 3
    assert min(curves) >= 20


def test_no_link_in_a_strangers_folder_is_followed(tmp_path: Path) -> None:
    folder, victim, elsewhere = tmp_path / "run", tmp_path / "victim", tmp_path / "elsewhere"
    writer = row_files.Writer(folder, 0)
    victim.write_text("mine")
    elsewhere.mkdir()
    for name in ("summary.json", "digests.json", "report.html", "exchanges/0-00000.parquet"):
        (folder / f"{name}.partial").symlink_to(victim)
    for name in ("summary.json", "digests.json", "exchanges/0-00000.partial"):
        (folder / name).symlink_to(victim)
    (folder / "report.html").symlink_to(elsewhere)
    writer.append(ok(0, (150,)))
    written = writer.flush()
    assert written and written.is_file() and not written.is_symlink()
    run = run_folder.open_run(folder)
    page = html.page([run], [save(run)])
    assert victim.read_text() == "mine"
    assert list(elsewhere.iterdir()) == []
    assert not page.is_symlink() and "<figure" in page.read_text()
    assert not (folder / "summary.json").is_symlink() and not (folder / "digests.json").is_symlink()


@pytest.mark.parametrize("name", RUNS)
def test_it_is_reported(name: str, tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for exchange in RUNS[name]:
        writer.append(exchange)
    writer.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = run_folder.open_run(tmp_path)
        summary = save(run)
        text.print_summary(summary, Console(file=io.StringIO()))
        page = html.page([run], [summary])
    assert page.read_text().count("<figure") >= 6
    assert sum(result.counts.recorded for result in summary.results) == len(RUNS[name])
