"""Odd runs still make a summary and a page, without a warning."""

from __future__ import annotations

import io
import warnings
from array import array
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reports import html, recorded, results, summary, text
from targets.exchange import Exchange, Outcome


def row(index: int, tokens: tuple[int, ...] = (), **more: Any) -> Exchange:
    facts = {"index": index, "target": "t", "due": 0, "prompt_tokens": 5, "output_tokens": 5, **more}
    return Exchange(**facts, token_at=array("q", tokens), token_events=array("i", [1] * len(tokens)))


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


@pytest.mark.parametrize("name", RUNS)
def test_it_is_reported(name: str, tmp_path: Path) -> None:
    writer = results.Writer(tmp_path, 0)
    for exchange in RUNS[name]:
        writer.append(exchange)
    writer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = recorded.load(tmp_path)
        found = summary.save(run)
        text.print_summary(found, Console(file=io.StringIO()))
        page = html.page([run], [found])
    assert page.read_text().count("<figure") >= 6
    assert sum(result["counts"]["recorded"] for result in found["results"]) == len(RUNS[name])
