"""Row files: written while running, whole or not there, and what comes back is what went in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from array import array
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reports.store import row_files
from targets.exchange import Call, Exchange, Outcome
from tests.exchanges import make_exchange
from tests.reports import made
from traces.errors import InputError
from traces.request import Request


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, seconds=5)
    rows.append(make_exchange(index=999, target="né\x00 <b>", due=5))  # nothing reached
    writer = row_files.Writer(tmp_path, 3)
    for row in rows[:20]:
        writer.append(row)
    assert writer.flush() == tmp_path / "exchanges" / "3-00000.parquet"
    for row in rows[20:]:
        writer.append(row)
    writer.flush()
    assert writer.rows == len(rows)
    assert list(made.restored(row_files.read(tmp_path))) == rows


COLUMNS = """
index: int64 not null, target: string not null, due: int64 not null, prompt_tokens: int64 not null,
output_tokens: int64 not null, step: string not null, session: int64 not null, turn: int64 not null, planned: int64,
counted: bool not null, attempt: int64 not null, started: int64, connected: int64, sent: int64, body_sent: int64,
headers_at: int64, done: int64, body_end: int64, reused: bool not null, reconnected: bool not null,
stepped: bool not null, token_at: list<item: int64> not null, token_events: list<item: int64> not null,
first_tokens: int64 not null,
first_after: int64, last_after: int64, first_lag: int64, max_lag: int64 not null, unstamped: int64 not null,
whole: bool not null, chars: int64 not null, bytes_received: int64 not null, status: int64, outcome: string not null,
error: string not null, finish_reason: string, retry_after: double, usage_prompt: int64, usage_output: int64,
usage_cached: int64, usage_reasoning: int64, tokenizer_output: int64, server_queue: double, server_prefill: double,
server_transfer: double, server_decode: double, server_ttft: double, server_total: double, request_id: string,
model: string, fingerprint: string, service_tier: string, region: string, ratelimit: string, prefill_worker: string,
decode_worker: string, prefill_sent: int64, prefill_done: int64, decode_sent: int64
"""


def test_the_columns_stay_as_they_are() -> None:
    assert [str(column) for column in row_files.SCHEMA] == [
        f"pyarrow.Field<{column}>" for column in COLUMNS.strip().replace("\n", " ").split(", ")
    ]


def test_every_fact_has_a_column() -> None:
    """But a prompt, its conversation and an answer's text, which are large, and what the sender needs of a call."""
    row = make_exchange(session=3, turn=2, planned=5, counted=False, attempt=2, step="s")
    facts = {field.name for kind in (Exchange, Call, Request) for field in fields(kind)}
    assert facts - set(row_files.SCHEMA.names) == {
        *("call", "request", "text", "unterminated", "prompt", "history", "leave_after", "prefix", "parent", "think")
    }
    (written,) = row_files.table([row]).to_pylist()
    assert (written["session"], written["turn"], written["planned"], written["counted"]) == (3, 2, 5, False)
    assert (written["attempt"], written["step"]) == (2, "s")


def test_nothing_pending_writes_no_file(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    assert writer.flush() is None
    with pytest.raises(InputError, match="no recorded exchanges"):
        row_files.read(tmp_path)


def test_a_second_writer_of_the_shard_counts_on(tmp_path: Path) -> None:
    for index in range(3):
        writer = row_files.Writer(tmp_path, "w")
        writer.append(make_exchange(index=index))
        writer.flush()
    assert [path.name for path in row_files.files(tmp_path)] == [f"w-{n:05d}.parquet" for n in range(3)]
    assert row_files.read(tmp_path, ["index"])["index"].to_pylist() == [0, 1, 2]


def test_flushing_threads_lose_and_repeat_nothing(tmp_path: Path) -> None:
    writer, total = row_files.Writer(tmp_path, 0), 3000
    over = threading.Event()

    def flush() -> None:
        while not over.is_set():
            writer.flush()

    threads = [threading.Thread(target=flush) for _ in range(2)]
    for thread in threads:
        thread.start()
    for index in range(total):
        writer.append(make_exchange(index=index,
                               token_at=array("q", [index, index + 1]), token_events=array("i", [1, 1])))  # fmt: skip
    over.set()
    for thread in threads:
        thread.join()
    writer.flush()
    rows = row_files.read(tmp_path).sort_by("index")
    assert rows["index"].to_pylist() == list(range(total))
    assert rows["token_at"].to_pylist() == [[index, index + 1] for index in range(total)]


def test_hostile_values_hold_nothing_up(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    writer.append(make_exchange(index=0, usage_output=10**30,
                           error="\ud800 half a pair"))  # fmt: skip
    writer.flush()
    (row,) = made.restored(row_files.read(tmp_path))
    assert (row.usage_output, row.error) == (2**63 - 1, "? half a pair")


def test_a_failed_write_keeps_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for index in range(4):
        writer.append(make_exchange(index=index))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    assert len(writer) == 4
    writer.flush()
    assert row_files.read(tmp_path, ["index"])["index"].to_pylist() == [0, 1, 2, 3]


KILLED = """
import sys, time
from pathlib import Path
from reports.store.row_files import Writer
from targets.exchange import Call, Exchange
from traces.request import Request
writer = Writer(Path(sys.argv[1]), 0)
for index in range(100_000):
    writer.append(Exchange(Call(request=Request(index, 0, 1, 1), target="t", due=0)))
    if index % 100 == 99:
        writer.flush()
        print(index + 1, flush=True)
"""


def test_kill_9_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    flushed = [int(child.stdout.readline()) for _ in range(5)][-1]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    index = row_files.read(tmp_path, ["index"])["index"].to_pylist()
    assert index == list(range(len(index)))
    assert len(index) >= flushed == 500


def test_workers_import_no_pandas(tmp_path: Path) -> None:
    code = KILLED.replace("100_000", "200") + (
        "from reports.store.digests import Digests\nDigests().state()\nassert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("damage", "message"), [("cut", "not a readable Parquet file"), ("foreign", "is missing")])
def test_damaged_files_are_named(tmp_path: Path, damage: str, message: str) -> None:
    writer = row_files.Writer(tmp_path, 0)
    writer.append(make_exchange(index=0, outcome=Outcome.OK))
    path = writer.flush()
    assert path is not None
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        pq.write_table(pq.read_table(path).drop_columns(["sent"]), path)
    with pytest.raises(InputError, match=message) as caught:
        row_files.read(tmp_path)
    assert str(path) in str(caught.value)
