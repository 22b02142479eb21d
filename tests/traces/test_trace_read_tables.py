"""Tables: exact instants, quick and careful ways agree, bad rows named by line and column."""

import gzip
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadgen import Load
from traces.errors import InputError
from traces.files import Source
from traces.formats import csv_table
from traces.formats.cells import NANOS
from traces.formats.rows import ReadOptions, beginning
from traces.formats.tables import format_of
from traces.reading import open_trace, write
from traces.trace import build

NAMES = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_2023 = f"{NAMES}\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109"
AZURE_2024 = f"{NAMES}\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,20,6\n"
JSON_ROW = '{"due_s":0,"prompt_tokens":1,"output_tokens":1}\n'


def written(folder: Path, text: str, name: str = "trace.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def test_azure_2023_keeps_all_seven_digits(tmp_path):
    trace = open_trace(written(tmp_path, AZURE_2023))
    assert trace.column("due").tolist() == [0, 4_314_579_000]
    assert trace.column("prompt_tokens").tolist() == [374, 396]
    assert trace.column("output_tokens").tolist() == [44, 109]
    last_digit = AZURE_2023.replace("18:15:50.9951690", "18:15:50.9951691")
    assert open_trace(written(tmp_path, last_digit)).span == 4_314_579_100


def test_azure_2024_has_offsets(tmp_path):
    trace = open_trace(written(tmp_path, AZURE_2024))
    assert trace.name == "azure" and trace.column("due").tolist() == [0, 990_070_000]


VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n1e1,5,6\n"
OWN = "due_{},prompt_tokens,output_tokens\n1700000000,374,44\n1700000004,396,0\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens\n5,M,472,18\n45,M,1087,0\n50,M,0,7\n118,M,417,276\n"
LENGTHS = "prompt_tokens,output_tokens"
SESSIONS = f"due_s,{LENGTHS},session,turn,parent,think_s\n0,9,1,5,0,-1,0\n1.5,9,1,7,0,-1,0\n2,9,1,5,1,0,1.25\n"
LINKED = f"index,due_s,{LENGTHS},parent\n12,0,9,1,-1\n14,1,9,1,12\n13,2,9,1,14\n15,3,9,1,99\n"
TALKS = f"due_s,{LENGTHS},session\n0,9,1,3\n1,9,1,-1\n2,9,1,3\n"
BLOCKS = f"due_s,{LENGTHS},prefix,prefix_tokens\n0,9,1,4 -5,8 {{}}\n1,9,1,,\n2,9,1,4,8\n"


@pytest.mark.parametrize(
    "text",
    [
        *(AZURE_2023, AZURE_2024, VIDUR, BURSTGPT, SESSIONS, LINKED, TALKS, BLOCKS.format(8), BLOCKS.format(1)),
        *(OWN.format(unit) for unit in ("s", "ms", "us", "ns")),
    ],
)
def test_the_quick_and_the_careful_way_agree(tmp_path, text):
    source = Source("t", Path(written(tmp_path, text)))
    columns = csv_table.header(source.head)
    table = format_of(columns, source.name, {})[0]
    quick = csv_table.read_fast(source, columns, table, ReadOptions())
    assert quick is not None
    careful = csv_table.read_carefully(source, columns, table, ReadOptions())
    assert quick.fingerprint() == careful.fingerprint() and quick.notes == careful.notes
    assert list(quick) == list(careful) and quick.block_tokens == careful.block_tokens


@pytest.mark.parametrize(
    "text",
    [
        OWN.format("ns").replace("374", "0x374"),
        OWN.format("ns").replace("1700000000", "0x10"),
        *(SESSIONS.replace("5,1,0,", odd) for odd in ("a,1,0,", "5,0x1,0,", "5,1.0,0,", "5,-1,0,", "5,1,,")),
        *(BLOCKS.format(odd) for odd in ("0", "8 8", "0x8", "1,5")),
        BLOCKS.format(8).replace("4,8", "4,7"),
        "due_s,prompt_tokens,output_tokens,output_tokens\n0,1,1,2\n",
    ],
)
def test_the_quick_way_leaves_to_the_careful_one_what_it_may_not_decide(tmp_path, text):
    source = Source("t", Path(written(tmp_path, text)))
    columns = csv_table.header(source.head)
    assert csv_table.read_fast(source, columns, format_of(columns, source.name, {})[0], ReadOptions()) is None


@pytest.mark.parametrize(
    ("cell", "nanos"),
    [
        ('"due_s":4.314579', 4_314_579_000),
        ('"due_s":"4.314579"', 4_314_579_000),
        ('"due_s":4.3145790011', 4_314_579_001),
        ('"due_ms":4314.579', 4_314_579_000),
        ('"due_us":4314579', 4_314_579_000),
        ('"due_ns":4314579001', 4_314_579_001),
        ('"due_s":1700000000.123456789', 1_700_000_000_123_456_789),
        ('"due_s":1e1', 10_000_000_000),
    ],
)
def test_every_unit_lands_on_exact_nanoseconds(tmp_path, cell, nanos):
    unit = cell.split('"')[1]
    lines = f'{{"{unit}":0,"prompt_tokens":1,"output_tokens":1}}\n{{{cell},"prompt_tokens":2,"output_tokens":0}}\n'
    trace = open_trace(written(tmp_path, lines))
    assert trace.span == nanos and trace.column("output_tokens").tolist() == [1, 0]


def test_compressed_folder_and_standard_input_read_alike(tmp_path, monkeypatch):
    want = open_trace(written(tmp_path, AZURE_2023)).fingerprint()
    (tmp_path / "a").write_bytes(gzip.compress(AZURE_2023.encode()))  # no name that tells
    (tmp_path / "b").write_bytes(pa.compress(AZURE_2023.encode(), codec="zstd", asbytes=True))
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, AZURE_2023)
    assert [open_trace(str(tmp_path / one)).fingerprint() for one in ("a", "b", "folder")] == [want] * 3

    class Piped:
        buffer = io.BytesIO(gzip.compress(AZURE_2023.encode()))

    monkeypatch.setattr(sys, "stdin", Piped)
    assert open_trace("-").fingerprint() == want


def test_parquet_gives_the_same_rows_back(tmp_path):
    trace = build(
        {
            "due": [0, 5, 10],
            "prompt_tokens": [10, 20, 30],
            "output_tokens": [1, 2, 3],
            "session": [0, 0, -1],
            "turn": [0, 1, 0],
            "parent": [-1, 0, -1],
            "think": [0, 7, 0],
            "prefix": [[1, 2], [1, 2, 3], []],
        },
        name="mine",
        block_tokens={1: 4, 2: 5, 3: 6},
        notes={"skipped rows": 1},
    ).noted("speed 2")
    write(trace, str(tmp_path / "t.parquet"))
    again = open_trace(str(tmp_path / "t.parquet"))
    assert list(again) == list(trace) and again.fingerprint() == trace.fingerprint()
    assert (again.name, again.block_tokens, again.transforms) == ("mine", {1: 4, 2: 5, 3: 6}, ("speed 2",))


HEADER = f"{NAMES}\n2023-11-16 18:15:46.6805900,374,44\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        (HEADER + "2023-11-16 18:15:47,-5,44\n", 3, "ContextTokens", "got '-5'"),
        (HEADER + "2023-11-16 18:15:47,0,44\n", 3, "ContextTokens", "expected 1 to"),
        (HEADER + "2023-11-16 18:15:47,99999999999,44\n", 3, "ContextTokens", "expected 1 to"),
        (HEADER + "2023-11-16 18:15:47,7.5,44\n", 3, "ContextTokens", "whole number"),
        (HEADER + "2023-11-16 18:15:47,7,\n", 3, "GeneratedTokens", "whole number"),
        (HEADER + "\n2023-13-16 18:15:47,7,8\n", 4, "TIMESTAMP", "calendar"),
        (HEADER + "yesterday,7,8\n", 3, "TIMESTAMP", "expected a time like"),
        (HEADER + "2023-11-16 18:15:45,7,8\n", 3, "TIMESTAMP", "earlier than the row before"),
        (HEADER + "2023-11-16 18:15:47,7\n", 3, None, "expected 3 cells, got 2"),
        (HEADER.replace("GeneratedTokens", "Generated"), 1, "GeneratedTokens", "expected column 'GeneratedTokens'"),
        (HEADER.split("\n")[0], None, None, "holds no usable request"),
        ("", None, None, "is empty"),
        (JSON_ROW + '{"due_s":0,\n', 2, None, "not JSON"),
        (
            JSON_ROW + '{"due_s":1,"prompt_tokens":1}\n',
            2,
            "output_tokens",
            "missing",
        ),
        (JSON_ROW + "[1]\n", 2, None, "expected a JSON object"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path, text, line, column, says):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        open_trace(path)
    error = caught.value
    assert (error.where, error.line, error.column) == (path, line, column)
    assert says in error.message and error.remedy and "\n" not in str(error)


def test_skipped_bad_rows_are_counted(tmp_path):
    text = HEADER + "bad,7,8\n2023-11-16 18:15:49,7,8\n2023-11-16 18:15:48,5,-6\n2023-11-16 18:15:48,5,6\n"
    trace = open_trace(written(tmp_path, text), skip_bad_rows=True)
    assert trace.column("prompt_tokens").tolist() == [374, 5, 7]
    assert trace.notes["skipped rows"] == 2 and trace.notes["rows out of order, sorted"] == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv: no such file"):
        open_trace(str(tmp_path / "no.csv"))


def test_a_fifo_is_refused_and_nothing_waits_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(InputError, match=r"fifo\.csv: can be read only once \(pipe it to standard input"):
        open_trace(str(tmp_path / "fifo.csv"))


def test_a_cut_compressed_file_is_named(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(AZURE_2023.encode())[:40])
    with pytest.raises(InputError, match="can't be read"):
        open_trace(str(path))


def test_reading_ends_early(tmp_path):
    rows = "".join(f"{second},7,8\n" for second in range(100))
    path = written(tmp_path, "due_s,prompt_tokens,output_tokens\n" + rows + "broken,1,1\n")
    assert open_trace(path, until=20).span == 20_000_000_000
    lines = "".join(f'{{"due_s":{second},"prompt_tokens":7,"output_tokens":8}}\n' for second in range(100))
    path = written(tmp_path, lines + "broken\n", "t.jsonl")
    assert open_trace(path, until=20).span == 20_000_000_000


instants = st.integers(0, 10**18)
cells = st.tuples(instants, st.integers(-2, 2**31 + 1), st.integers(-2, 2**31 + 1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(cells, min_size=1, max_size=8), st.sampled_from(("iso", "ns", "us", "ms", "s")), st.booleans())
def test_what_the_quick_way_takes_the_careful_way_takes_alike(tmp_path, drawn, unit, ordered):
    drawn = sorted(drawn) if ordered else drawn
    if unit == "iso":
        names = NAMES
        stamps = [f"{datetime.fromtimestamp(at // 10**9, UTC):%Y-%m-%d %H:%M:%S}.{at % 10**9:09}" for at, *_ in drawn]
    else:
        names = f"due_{unit},prompt_tokens,output_tokens"
        stamps = [str(Decimal(at) / NANOS[unit]) for at, *_ in drawn]
    rows = [f"{stamp},{prompt},{output}" for stamp, (_, prompt, output) in zip(stamps, drawn, strict=True)]
    source = Source("t", Path(written(tmp_path, "\n".join([names, *rows]))))
    columns = csv_table.header(source.head)
    table = format_of(columns, source.name, {})[0]
    quick = csv_table.read_fast(source, columns, table, ReadOptions())
    good = all(1 <= prompt < 2**31 and 0 <= output < 2**31 for _, prompt, output in drawn)
    if good and drawn == sorted(drawn, key=lambda row: row[0]):
        careful = csv_table.read_carefully(source, columns, table, ReadOptions())
        start = beginning(drawn[0][0], table.relative)
        assert careful.column("due").tolist() == [at - start for at, *_ in drawn]
        assert quick is None or quick.fingerprint() == careful.fingerprint()
        assert quick is not None or unit == "iso" or any(len(stamp) > 27 for stamp in stamps)
    else:
        assert quick is None
        with pytest.raises(InputError):
            csv_table.read_carefully(source, columns, table, ReadOptions())


@pytest.mark.parametrize("exponent", ["e-400000000", "E-400000000", "e-5"])
def test_an_exponent_of_any_size_is_read(tmp_path, exponent):
    text = f"due_s,prompt_tokens,output_tokens\n3{exponent},5,6\n1.5,7,8\n"
    assert open_trace(written(tmp_path, text)).column("prompt_tokens").tolist() == [5, 7]


MINE = "start_time, input_tokens,output_len,user\n0.0,100,20,a\n1.5,200,30,b\n"
OURS = "due_s=start_time, prompt_tokens=input_tokens,output_tokens=output_len"


@pytest.mark.parametrize("session", ["", ",session=user"])
def test_a_table_with_names_of_its_own(tmp_path, session):
    trace = open_trace(written(tmp_path, MINE), columns=OURS + session)
    rows = [(request.due, request.prompt_tokens, request.output_tokens) for request in trace]
    assert rows == [(0, 100, 20), (1_500_000_000, 200, 30)] and trace.has("session") is bool(session)
    assert trace.notes["columns"]["start_time"] == "due_s"
    assert len(Load(columns=OURS).requests(trace.source)) == 2
    lines = "".join(json.dumps(dict(zip(["t", "prompt_tokens", "o"], row, strict=True))) + "\n" for row in rows)
    again = open_trace(written(tmp_path, lines), columns="due_ns=t,output_tokens=o")
    assert [request.due for request in again] == [0, 1_500_000_000]


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        (
            MINE,
            None,
            "understood none of .*'user' .*--columns due_s=...,prompt_tokens=input_tokens,output_",
        ),
        (MINE.replace("output_len", "output_tokens"), None, "understood output_tokens of the columns"),
        (MINE, "due_s=begin", "no column 'begin' .it has 'start_time', 'input_tokens'"),
        (MINE, "due=start_time", "OURS=THEIRS, got 'due=start_time' .did you mean due_s"),
        (MINE, "due_s", "OURS=THEIRS"),
        (MINE.split("\n", 1)[1], None, "no header line"),
        ("[]", OURS, "no usable request"),
    ],
)
def test_columns_that_arent_understood_are_listed(tmp_path, text, columns, says):
    with pytest.raises(InputError, match=says):
        open_trace(written(tmp_path, text), columns=columns)
    with pytest.raises(InputError, match="is no table"):
        open_trace("azure-conv", columns=OURS)


MEMORY = """
import sys, tracemalloc
import pyarrow as pa
from traces.formats import csv_table
from traces.reading import open_trace
from traces.statistics import describe
csv_table.BLOCK = 1 << 18
open_trace(sys.argv[1], until=1)  # imports what it needs
tracemalloc.start()
trace = open_trace(sys.argv[1])
opened = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory()
tracemalloc.reset_peak()
describe(trace)
print(opened / trace.table.nbytes, tracemalloc.get_traced_memory()[1] / trace.table.nbytes)
"""


def test_a_long_trace_is_never_in_memory_twice(tmp_path):
    rows = "".join(f"{i / 100},{i % 4000 + 1},{i % 500}\n" for i in range(200_000))
    path = written(tmp_path, "due_s,prompt_tokens,output_tokens\n" + rows)
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    read, described = map(float, done.stdout.split())
    assert read < 2  # times the trace; with what of it is being parsed
    assert described < 2.2
