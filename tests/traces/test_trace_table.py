"""`Trace`: columns, slices, lazy iteration, fingerprint."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa

from traces.trace import Request, Trace, build


def small() -> Trace:
    return build(
        {
            "due": [0, 5, 10, 20],
            "prompt_tokens": [10, 20, 30, 40],
            "output_tokens": [1, 2, 3, 4],
            "session": [0, 0, -1, 1],
            "turn": [0, 1, 0, 0],
            "parent": [-1, 0, -1, -1],
            "think": [0, 7, 0, 0],
            "prefix": [[1, 2], [1, 2, 3], [], [1]],
        },
        block_tokens=4,
    )


def test_iteration_gives_every_field_of_every_row():
    assert list(small())[1] == Request(1, 5, 20, 2, 0, 1, (1, 2, 3), 0, 7)
    assert [r.index for r in small()] == [0, 1, 2, 3]


def test_missing_columns_have_the_defaults_of_request():
    plain = build({"due": [0, 1], "prompt_tokens": [3, 4], "output_tokens": [5, 6]})
    assert list(plain) == [Request(0, 0, 3, 5), Request(1, 1, 4, 6)]
    assert plain.column("session").tolist() == [-1, -1]
    assert plain.span == 1 and not plain.has("session") and not plain.has("prefix")


def test_a_slice_keeps_the_names_of_its_requests():
    part = small()[1:3]
    assert list(part) == list(small())[1:3]
    offsets, ids = part.prefixes()
    assert offsets.tolist() == [0, 3, 3] and ids.tolist() == [1, 2, 3]
    assert list(small()[::2]) == list(small())[::2]


def test_take_by_mask_and_by_position_agree():
    mask = np.array([True, False, False, True])
    assert list(small().take(mask)) == list(small().take(np.array([0, 3])))


def test_the_fingerprint_is_that_of_the_content():
    trace = small()
    chunked = replace(trace, table=pa.concat_tables([trace.table.slice(0, 1), trace.table.slice(1)]))
    assert chunked.fingerprint() == trace.fingerprint()
    changed = trace.with_columns(due=np.array([0, 5, 10, 21]))
    assert changed.fingerprint() != trace.fingerprint()
    spelled_out = build(
        {"due": [0], "prompt_tokens": [1], "output_tokens": [1], "session": [-1], "turn": [0], "think": [0]}
    )
    silent = build({"due": [0], "prompt_tokens": [1], "output_tokens": [1]})
    assert spelled_out.fingerprint() == silent.fingerprint()


def test_the_fingerprint_is_the_same_in_another_process():
    rows = "{'due': [0], 'prompt_tokens': [9], 'output_tokens': [2]}"
    code = f"from traces.trace import build; print(build({rows}).fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == build({"due": [0], "prompt_tokens": [9], "output_tokens": [2]}).fingerprint()


def test_an_empty_trace_is_a_trace():
    empty = small()[0:0]
    assert list(empty) == [] and empty.span == 0 and empty.fingerprint()
