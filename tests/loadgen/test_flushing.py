"""Rows reach the disk: also those of a write that is under way at the end, and those that a full disk refused."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import gevent
import pyarrow.parquet as pq
import pytest

from loadgen import plan as plans
from loadgen.plan import Arm, Plan, Step
from loadgen.run import worker
from loadgen.run.messages import Assignment, boot_id, encode
from loadgen.run.worker import Flushing, Worker
from reports.store import row_files
from reports.store.row_files import Writer
from targets.target import Target
from tests.exchanges import make_exchange
from traces.errors import InputError

WRITE = pq.write_table


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FLUSH", 0.01)


def written(folder: Path) -> int:
    return len(row_files.read(folder)) if list(folder.rglob("*.parquet")) else 0


def test_a_write_under_way_at_the_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is slow: the last write begins while the one before is still under way."""
    monkeypatch.setattr(row_files.pq, "write_table", lambda *a, **k: (time.sleep(0.2), WRITE(*a, **k)))
    writer = Writer(tmp_path, 0)
    flushing = Flushing(writer)
    for index in range(10):
        writer.append(make_exchange(index))
    gevent.sleep(0.05)  # the flusher has taken the rows, and writes them
    assert not len(writer) and not written(tmp_path)
    writer.append(make_exchange(10))
    assert flushing.close() == 0
    assert writer.rows == written(tmp_path) == 11


def test_a_full_disk_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full_until = time.monotonic() + 0.1

    def write(*arguments: object, **options: object) -> None:
        if time.monotonic() < full_until:
            raise OSError(errno.ENOSPC, "No space left on device")
        WRITE(*arguments, **options)

    monkeypatch.setattr(row_files.pq, "write_table", write)
    writer = Writer(tmp_path, 0)
    flushing = Flushing(writer)
    for index in range(20):
        writer.append(make_exchange(index))
        gevent.sleep(0.01)
    assert flushing.close() > 1
    assert sorted(row_files.read(tmp_path)["index"].to_pylist()) == list(range(20))
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "rows can't be written: No space left on device"
    ]


def test_a_disk_that_stays_full_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(row_files.pq, "write_table", write)
    writer = Writer(tmp_path, 0)
    flushing = Flushing(writer)
    writer.append(make_exchange(0))
    with pytest.raises(OSError, match="No space left"):
        flushing.close()
    assert len(writer) == 1  # still there


def test_rows_of_a_step_that_fails_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Worker, *_: object) -> None:
        self._writer.append(make_exchange(0))
        raise InputError("no such file")

    monkeypatch.setattr(worker, "FLUSH", 60.0)
    monkeypatch.setattr(Worker, "_step", step)
    (tmp_path / ".shared").write_text("secret")
    plan = Plan("p", (Step("s", (Arm(Target("a", "http://h"), plans.step_file(0), 1),)),))
    failing = Worker(lambda _: None, lambda _: None)
    failing.deliver(encode(Assignment(0, 1, plan, "none", str(tmp_path), "secret", boot_id())))
    assert failing.done.wait(10) and str(failing.error) == "no such file"
    assert written(tmp_path) == 1
