"""The durations over columns are Exchange's own, row by row."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.store import durations, row_files
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange
from tests.reports import made

instants = st.none() | st.integers(-(10**9), 10**15)
counts = st.none() | st.integers(0, 5000)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    reads = sorted(draw(st.lists(st.integers(0, 10**12), max_size=12)))
    return make_exchange(
        index=draw(st.integers(0, 10**6)), target=draw(st.sampled_from("ab")), due=draw(st.integers(0, 10**13)),
        prompt_tokens=draw(st.integers(1, 10**5)), output_tokens=draw(st.integers(1, 10**4)),
        started=draw(instants), connected=draw(instants), sent=draw(instants), body_sent=draw(instants),
        done=draw(instants), token_at=array("q", reads),
        token_events=array("i", [draw(st.integers(1, 4)) for _ in reads]), first_tokens=draw(st.integers(1, 8)),
        whole=draw(st.booleans()), first_lag=draw(counts), usage_output=draw(counts), tokenizer_output=draw(counts),
        outcome=draw(st.sampled_from(list(Outcome))),
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(exchanges(), min_size=1, max_size=8))
def test_columns_equal_the_properties(rows: list[Exchange]) -> None:
    columns = durations.columns_of(row_files.table(rows))
    for name in ("lateness", "ttft", "ttft_from_due", "tpot", "e2e", "output_count"):
        expected = [math.nan if (value := getattr(row, name)) is None else value for row in rows]
        assert columns[name] == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), name
    stalls = [max(row.gaps(), default=math.nan) for row in rows]
    assert columns["longest_stall"] == pytest.approx(stalls, rel=1e-9, abs=1e-12, nan_ok=True)
    sources = [{"usage": row.usage_output, "tokenizer": row.tokenizer_output, "chunks": 0} for row in rows]
    assert list(columns["token_source"]) == [next(k for k, v in counts.items() if v is not None) for counts in sources]
    assert list(columns["ok"]) == [row.ok for row in rows]
    gaps, owner = durations.itl(row_files.table(rows))
    assert gaps == pytest.approx([gap for row in rows for gap in row.gaps()])
    assert owner.tolist() == [number for number, row in enumerate(rows) for _ in row.gaps()]


@settings(deadline=None, max_examples=60)
@given(st.lists(exchanges(), min_size=1, max_size=8))
def test_brackets_hold_the_figures(rows: list[Exchange]) -> None:
    columns = durations.columns_of(row_files.table(rows))
    for low, high in (("ttft_low", "ttft"), ("tpot_low", "tpot"), ("tpot", "tpot_high")):
        assert np.all((columns[low] <= columns[high]) | np.isnan(columns[high]))


def test_a_read_with_one_event_is_exact_and_a_shared_one_is_not() -> None:
    row = make_exchange(index=0, target="t", due=0, prompt_tokens=1, output_tokens=3, sent=100, usage_output=3,
                   token_at=array("q", [1100, 2100]), token_events=array("i", [1, 2]), first_after=600, last_after=1600,
                   outcome=Outcome.OK)  # fmt: skip
    columns = durations.columns_of(row_files.table([row]))
    assert columns["ttft_low"][0] == columns["ttft"][0] == pytest.approx(1000e-9)
    assert columns["tpot_low"][0] == pytest.approx(250e-9)
    row.token_events = array("i", [2, 1])
    columns = durations.columns_of(row_files.table([row]))
    assert columns["ttft_low"][0] == pytest.approx(500e-9)
    assert columns["tpot_high"][0] == pytest.approx(750e-9)
    row.token_events, row.unstamped = array("i", [1, 2]), 1
    assert durations.columns_of(row_files.table([row]))["ttft_low"][0] == pytest.approx(500e-9)


def test_in_flight_is_counted_from_the_rows(tmp_path: Path) -> None:
    spans = [(0, 100), (10, 50), (20, None), (50, 60), (70, 80)]
    writer = row_files.Writer(tmp_path, 0)
    for index, (sent, done) in enumerate(spans):
        writer.append(
            make_exchange(index=index, target="t", due=sent, prompt_tokens=1, output_tokens=1, sent=sent, done=done)
        )
    writer.append(make_exchange(index=9, target="other", due=0, prompt_tokens=1, output_tokens=1, sent=30, done=90))
    writer.append(make_exchange(index=10, target="t", due=99, prompt_tokens=1, output_tokens=1))
    writer.flush()
    rows = made.frame(tmp_path).sort_values("index")
    assert rows["in_flight"].tolist()[:-1] == [1, 2, 3, 3, 3, 1]
    assert math.isnan(rows["in_flight"].iloc[-1])


def test_a_frame_over_many_files_is_the_same(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, seconds=20)
    one, many = row_files.Writer(tmp_path / "one", 0), row_files.Writer(tmp_path / "many", 0)
    for number, row in enumerate(rows):
        one.append(row)
        many.append(row)
        if number % 7 == 0:
            many.flush()
    one.flush()
    many.flush()
    first, second = made.frame(tmp_path / "one"), made.frame(tmp_path / "many")
    assert first.drop(columns="error").equals(second.drop(columns="error")[first.columns.drop("error")])


def test_no_rows_give_empty_columns() -> None:
    columns = durations.columns_of(pa.table(row_files.SCHEMA.empty_table()))
    assert len(columns["ttft"]) == 0
