"""Files of our own give the same rows back; the text and the picture are of the trace they are given."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reports.render.trace_view import duration, plot_trace, spark, trace_text
from traces.errors import InputError
from traces.files import Source
from traces.formats import csv_table
from traces.formats.rows import ReadOptions
from traces.formats.tables import format_of
from traces.reading import open_trace, write
from traces.statistics import describe
from traces.trace import Trace, build
from traces.workload import synthesise

ENDINGS = ("parquet", "jsonl", "csv", "jsonl.gz", "csv.zst")

rows = st.lists(
    st.tuples(
        st.integers(0, 10**15),
        st.integers(1, 2**31 - 1),
        st.integers(0, 2**31 - 1),
        st.integers(-1, 3),
        st.lists(st.integers(0, 5), max_size=4),
    ),
    min_size=1,
    max_size=12,
)


def traced(drawn, sessions: bool, prefixes: bool) -> Trace:
    drawn = sorted(drawn, key=lambda row: row[0])
    columns = {
        "due": [row[0] - drawn[0][0] for row in drawn],
        "prompt_tokens": [row[1] for row in drawn],
        "output_tokens": [row[2] for row in drawn],
    }
    if sessions:
        last: dict[int, int] = {}
        columns |= {"session": [row[3] for row in drawn], "turn": [], "parent": [], "think": []}
        for number, row in enumerate(drawn):
            parent = last.get(row[3], -1) if row[3] >= 0 else -1
            columns["parent"].append(parent)
            columns["turn"].append(columns["turn"][parent] + 1 if parent >= 0 else 0)
            columns["think"].append(number * 10**9 if parent >= 0 else 0)
            last[row[3]] = number
    if prefixes:
        columns["prefix"] = [row[4] for row in drawn]
    return build(columns, block_tokens={block: block + 1 for block in range(6)} if prefixes else 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows, st.booleans(), st.booleans(), st.sampled_from(ENDINGS))
def test_what_is_written_is_read_again(tmp_path, drawn, sessions, prefixes, ending):
    trace = traced(drawn, sessions, prefixes)
    path = str(tmp_path / f"t.{ending}")
    write(trace, path)
    again = open_trace(path)
    assert list(again) == list(trace) and again.fingerprint() == trace.fingerprint()
    used = {block for request in trace for block in request.prefix}
    sizes = again.block_tokens
    assert all((sizes if isinstance(sizes, int) else sizes[block]) == block + 1 for block in used)
    if ".csv" in path:
        columns = csv_table.header(Source(path, Path(path)).head)
        assert csv_table.read_fast(Source(path, Path(path)), columns, format_of(columns, path, {})[0], ReadOptions())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_part_of_a_trace_keeps_its_names(tmp_path, ending):
    part = synthesise("mooncake-conversation", duration=60)[10:50]
    write(part, tmp_path / f"t.{ending}")
    assert open_trace(tmp_path / f"t.{ending}").source == str(tmp_path / f"t.{ending}")
    assert [r.index for r in open_trace(str(tmp_path / f"t.{ending}"))] == list(range(10, 50))


def test_unwritable_places_and_unknown_endings_are_refused(tmp_path):
    trace = synthesise("fixed-128-128", duration=10)
    for path in ("t.txt", "nowhere/t.csv", "nowhere/t.parquet"):
        with pytest.raises(InputError):
            write(trace, str(tmp_path / path))
    for path in ("t.jpg", "nowhere/t.png", "nowhere/t.html"):
        with pytest.raises(InputError):
            plot_trace(trace, describe(trace), str(tmp_path / path))


def test_the_text_says_what_a_person_asks():
    trace = synthesise("mooncake-conversation", duration=300)
    text = trace_text(trace, describe(trace))
    for word in ("requests", "a second", "CV", "variance/mean", "p99", "sessions", "perfect prefix cache would hit"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    one = trace[0:1]
    assert "1 in 0 s" in trace_text(one, describe(one))


def test_bars_are_as_high_as_their_counts():
    assert spark([0, 1, 50, 100]) == " ▁▄█"
    assert spark([]) == "" and spark([0, 0]) == "  "
    assert [duration(s) for s in (0, 0.25, 59, 150, 7200, 200_000)] == [
        "0 s",
        "250 ms",
        "59 s",
        "2.5 min",
        "2 h",
        "2.31 d",
    ]


@pytest.mark.parametrize("name", ["azure-code", "fixed-128-128", "weka-agentic"])
def test_pictures_are_written(tmp_path, name):
    trace = synthesise(name, duration=60)
    if name == "azure-code":  # the same drawing in every form
        plot_trace(trace, describe(trace), str(tmp_path / "t.png"))
        assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
        plot_trace(trace, describe(trace), str(tmp_path / "t.svg"))
        assert ET.parse(tmp_path / "t.svg").getroot().tag.endswith("svg")
    plot_trace(trace, describe(trace), str(tmp_path / "t.html"))
    page = (tmp_path / "t.html").read_text()
    assert ("<svg" in page and "perfect" in page) or name != "weka-agentic"
    assert "src=" not in page and "<script" not in page and "@import" not in page


def test_a_hostile_name_is_escaped(tmp_path):
    trace = synthesise("fixed-128-128", duration=60)
    hostile = Trace(trace.table, name="<script>alert(1)</script>", source="<img src=x>")
    plot_trace(hostile, describe(hostile), str(tmp_path / "t.html"))
    page = (tmp_path / "t.html").read_text()
    assert "<script>" not in page and "<img" not in page
