"""The page: complete, self-contained, and deaf to what servers and users write into their names."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from reports import number_format
from reports.analysis.summary import Summary
from reports.render import findings, html, plots, text
from reports.store import row_files
from targets.exchange import Outcome
from tests.exchanges import make_exchange
from tests.reports import made


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(report: Path) -> Seen:
    return Seen(report.read_text())


def test_every_plot_and_section_is_there(page: Seen) -> None:
    figures = [attributes["id"] for tag, attributes in page.tags if tag == "figure"]
    assert figures == [
        f"run0-{name}" for name in ("cdf-0", "cdf-1", "steps", "in-flight", "phases", "timeline", "client", "trace")
    ]
    assert sum(tag == "svg" for tag, _ in page.tags) == len(figures)
    for words in ("Prefill and decode", "How honest the client was", "The trace", "Definitions", "simulated", "assumed",
                  "overloaded: groqrack, gpu+groq", "< 2,995", "not reported"):  # fmt: skip
        assert words in page.text, words


def test_the_page_needs_nothing_from_anywhere(page: Seen) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "base", "form", "image", "img"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (tag, value)
    style = page.text[: page.text.index("run valid")]
    assert "@import" not in style
    assert "url(http" not in style


def test_ids_are_unique(page: Seen) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_figures_are_those_of_the_summary(summed: Summary, page: Seen) -> None:
    for result in summed.results:
        for metric in ("ttft", "tpot", "e2e"):
            for row in result.metrics[metric].quantiles:
                if row.q in html.SHOWN:
                    assert findings.quantile(row) in page.text


def test_hostile_texts_stay_texts(hostile: Path) -> None:
    page = (hostile / "report.html").read_text()
    seen = Seen(page)
    assert not {tag for tag, _ in seen.tags} & {"script", "img"}
    assert "<script>alert(1)</script>" in seen.text
    assert "{{7*7}}" in seen.text
    assert "49" not in re.findall(r"\{\{.{0,9}|alert.{0,12}", seen.text)
    assert len(page) < 2_000_000
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)


def test_hostile_texts_on_a_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    text.print_summary(made.summarise(hostile), Console(width=200))
    assert "\x1b[31m" not in capsys.readouterr().out


def test_several_runs_in_one_page(tmp_path: Path) -> None:
    folders = [made.run(tmp_path / name, (one,), seconds=20) for name, one in (("a", made.GPU), ("b", made.GPU))]
    out = made.page(folders, tmp_path / "both.html")
    seen = Seen(out.read_text())
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"run0-timeline", "run1-timeline"} <= set(ids)
    assert out == tmp_path / "both.html"
    assert "The same request in both runs" in seen.text
    assert seen.text.count("h100 (") > 0


def test_page_one_says_what_passed_and_what_was_asked(tmp_path: Path) -> None:
    """Not "valid" in green, which reads as a pass."""
    slo = ["ttft p99 < 800ms", "tpot p50 < 5ms", "errors < 1%"]
    folder = made.run(tmp_path, (made.GPU,), change=lambda facts: facts.update(slo=slo))
    page = made.page([folder]).read_text()
    first = Seen(page[page.index('<article class="front">') : page.index("</article>")]).text
    assert "✗ FAIL 1/3 run valid" in first and "valid: it was not the bottleneck" in first
    for words in ("endpoint h100 http://127.0.0.1:8000, made-7b, chat", "load 1x 10 requests/s, counted for 57 s",
                  "per million output tokens"):  # fmt: skip
        assert words in first, words
    cdf = page[page.index('<figure id="run0-cdf-0">') :].partition("</figure>")[0]
    assert "p99 800 ms" in cdf and "p50 5 ms" in cdf
    assert cdf.count("stroke: var(--bad)") == 2


def test_large_ticks_are_plain_numbers() -> None:
    axes = Figure().subplots()
    axes.plot([1, 2], [2e5, 3e6])
    plots.log_axis(axes, "y")
    assert [axes.yaxis.get_major_formatter()(value) for value in (0.5, 2e5, 1e6)] == ["0.5", "200,000", "1,000,000"]


def test_a_run_without_answers_and_one_without_facts_still_make_a_page(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for index in range(3):
        writer.append(
            make_exchange(
                index=index, target="dead", due=index, prompt_tokens=5, output_tokens=5, outcome=Outcome.REFUSED
            )
        )
    writer.flush()
    seen = Seen(made.page([tmp_path]).read_text())
    assert "invalid" in seen.text
    assert "refused" in seen.text


def test_the_same_run_gives_the_same_page(bakeoff: Path, report: Path, tmp_path: Path) -> None:
    assert made.page([bakeoff], tmp_path).read_bytes() == report.read_bytes()


@pytest.mark.parametrize(
    ("value", "said"), [(2e-4, "200 µs"), (1e-3, "1 ms"), (0.05, "50 ms"), (1.0, "1 s"), (20.0, "20 s"), (1e-6, "1 µs")]
)
def test_axis_labels(value: float, said: str) -> None:
    assert plots.seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.0, "0.000"), (1.234e-4, "0.123"), (0.00457, "4.57"), (0.0457, "45.7"), (0.4566, "457"),
     (4.5667, "4,567"), (12.34, "12.3 s"), (0.0099999, "10.0"), (0.09996, "100"), (0.00099996, "1.00")],
)  # fmt: skip
def test_milliseconds(value: float | None, said: str) -> None:
    assert number_format.ms(value) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0308, 0.0353, "30.8–35.3"),
        (0.548, 1325.0, "548 ms–1,325 s"),
        (10.2, 11.2, "10.2–11.2 s"),
        (0.164, math.inf, "164–∞"),
        (12.0, math.inf, "12.0 s–∞"),
    ],
)
def test_spans(low: float, high: float, said: str) -> None:
    assert number_format.span(low, high) == said
