"""Large runs: what a row costs to write and to summarise. `--rows 1000000` is the long form, 200,000 the short one.

Rows have 64 tokens each, two targets and one load step. Writing is measured as a worker does it (Exchange objects,
converted and flushed); the large run itself is made in columns, because making objects is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reports.store import row_files
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange

TOKENS = 64
PIECE = 50_000  # rows of a file
WRITE_LIMIT, ROW_LIMIT, MEMORY_LIMIT = 40e-6, 60e-6, 6.0  # seconds a row, seconds a row, kB a row


def exchange(index: int) -> Exchange:
    start = index * 1_000_000
    tokens = array("q", range(start + 30_000_000, start + 30_000_000 + TOKENS * 5_000_000, 5_000_000))
    return make_exchange(index=index, target="t", due=start, prompt_tokens=500, output_tokens=TOKENS, started=start,
                    sent=start, done=tokens[-1], token_at=tokens, token_events=array("i", [1] * TOKENS),
                    status=200, outcome=Outcome.OK, usage_output=TOKENS, request_id=f"request-{index}")  # fmt: skip


def writing(folder: Path, rows: int = 20_000) -> float:
    """CPU seconds a row that flushing takes."""
    writer = row_files.Writer(folder, 0)
    for index in range(rows):
        writer.append(exchange(index))
    before = process_time()
    writer.flush()
    return (process_time() - before) / rows


def make(folder: Path, rows: int) -> None:
    """A run of `rows` rows: the template row repeated, its instants shifted and its durations drawn."""
    (folder / row_files.FOLDER).mkdir(parents=True)
    rng = np.random.default_rng(7)
    for number, first in enumerate(range(0, rows, PIECE)):
        n = min(PIECE, rows - first)
        index = np.arange(first, first + n) // 2
        start = index * 2_000_000
        begin = start + (rng.lognormal(-3, 0.5, n) * 1e9).astype(np.int64)
        tokens = begin[:, None] + np.cumsum((rng.lognormal(-5, 0.3, (n, TOKENS)) * 1e9).astype(np.int64), axis=1)
        ends = pa.array(np.arange(0, (n + 1) * TOKENS, TOKENS, dtype=np.int32))
        table = pa.concat_tables([row_files.table([exchange(0)])]).take(pa.array(np.zeros(n, np.int64)))
        for name, column in {
            "index": pa.array(index), "due": pa.array(start), "started": pa.array(start), "sent": pa.array(start),
            "done": pa.array(tokens[:, -1]), "target": pa.array(np.array(["a", "b"])[np.arange(n) % 2]),
            "prompt_tokens": pa.array(rng.integers(10, 4000, n)),
            "token_at": pa.ListArray.from_arrays(ends, pa.array(tokens.ravel())),
            "token_events": pa.ListArray.from_arrays(ends, pa.array(np.ones(n * TOKENS, np.int64))),
        }.items():  # fmt: skip
            table = table.set_column(table.schema.get_field_index(name), row_files.SCHEMA.field(name), column)
        pq.write_table(table, folder / row_files.FOLDER / f"0-{number:05d}.parquet", compression="zstd")


REPORT = """
import json, sys, time
from reports import open_run
from reports.analysis.summary import save
from reports.render import html
begin = time.perf_counter()
run = open_run(sys.argv[1]); loaded = time.perf_counter()
summary = save(run); summed = time.perf_counter()
html.page([run], [summary]); drawn = time.perf_counter()
print(json.dumps([loaded - begin, summed - loaded, drawn - summed]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reports_rows")
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else []).rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = writing(folder / "written")
        print(f"writing: {row * 1e6:.1f} us of CPU a row of {TOKENS} tokens (limit {WRITE_LIMIT * 1e6:.0f})")
        make(folder / "run", rows)
        size = sum(path.stat().st_size for path in (folder / "run").rglob("*.parquet"))
        done = subprocess.run(
            [sys.executable, "-c", REPORT, str(folder / "run")], stdout=subprocess.PIPE, check=True, text=True
        )
        load, summed, drawn = json.loads(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory, whole = used.ru_maxrss / rows, used.ru_utime + used.ru_stime  # kB, s
    print(f"{rows:,} rows, {rows * TOKENS:,} tokens, {size / 1e6:.0f} MB: read {load:.1f} s, summary "
          f"{summed:.1f} s, page {drawn:.1f} s; {whole / rows * 1e6:.0f} us of CPU a row in all "
          f"(limit {ROW_LIMIT * 1e6:.0f}), "
          f"peak {memory:.1f} kB a row (limit {MEMORY_LIMIT:.0f})")  # fmt: skip
    return int(row > WRITE_LIMIT or whole / rows > ROW_LIMIT or memory > MEMORY_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
