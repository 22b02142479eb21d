"""A part of the fuzz run of `make bench`: damaged files of every format are read or refused, never a traceback."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.traces_fuzz import run
from traces.errors import InputError
from traces.reading import open_trace, write
from traces.workload import synthesise


@pytest.mark.parametrize("seed", [101, 102])
def test_damaged_rows_never_end_in_a_traceback(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a failure leaves its file
    found = Counter(run(2500, seed))
    assert found["read"] > 50 and len(found) > 10  # both ways were taken


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_parquet_and_compressed_files_are_refused_or_read(tmp_path, data):
    ending = data.draw(st.sampled_from(("parquet", "csv.gz", "jsonl.zst")))
    path = tmp_path / f"t.{ending}"
    write(synthesise("azure-conv", duration=5), str(path))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(4, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole[: data.draw(st.integers(5, len(whole)))])
    try:
        assert len(list(open_trace(str(path))))
    except InputError as error:
        assert "\n" not in str(error)
