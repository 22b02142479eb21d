"""A bundle: one file without prompts, keys or host names, from which reports rebuild every figure of a run.

A bundle is a ZIP archive of the run's own files (run.json, the rows, digests.json, metrics.jsonl; of a folder of rounds
each round's, and rounds.json), each as `hiding` leaves it, and bundle.json, which says what it is. The same run gives
the same bytes: names are sorted, times are fixed. docs/contracts.md lists what is in it, and what isn't.

Whoever opens a bundle reads a stranger's file. Only the names above are taken, each once, whole and within a limit; the
archive can name no other place, since names are looked up and never followed, and what it says to be links or programs
is read as bytes. Rows are Parquet, which is compressed once more: what their file says to hold is compared with the
bytes that it has, before it is read.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from targets import telemetry
from traces.errors import InputError
from traces.files import regular, whole
from traces.typed_json import from_json, to_json

from . import rounds_json, row_files, run_json
from .digests import DigestsFile
from .hiding import Hiding

FORMAT = 1
ABOUT, DIGESTS = "bundle.json", "digests.json"
ROWS = r"[0-9]{1,6}-[0-9]{1,9}\.parquet"
NAME = re.compile(
    rf"(?:round-[1-9][0-9]{{0,5}}/)?(?:run\.json|digests\.json|metrics\.jsonl|{row_files.FOLDER}/{ROWS})"
    r"|rounds\.json|bundle\.json"
)
LONG_AGO = (1980, 1, 1, 0, 0, 0)
PLAIN_FILE = 0o100644 << 16

MOST = 20_000  # files of a bundle
LARGEST = 16 << 30  # bytes of all of them, decompressed
LARGEST_TEXT = 256 << 20  # bytes of a file that isn't rows, and of rows that the archive compresses once more
DENSEST = 64  # values of a column for each byte of its file, beyond SPARE
SPARE = 100_000
BROKEN = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class About:
    """bundle.json."""

    format: int
    version: str  # of the phaseload that made it


def pack(folder: Path, out: Path) -> None:
    """Writes the bundle of a run's folder, or a folder of rounds. Raises InputError where there is none."""
    if not folder.is_dir():
        problem = "a file, and no run's folder" if folder.exists() else "no such run"
        raise InputError(problem, where=str(folder), remedy="give a folder under runs/")
    rounds = rounds_json.round_folders(folder)
    parts = {f"{path.name}/": path for path in rounds.values()} or {"": folder}
    facts = {path: run_json.read(path) for path in parts.values() if (path / run_json.FILE).exists()}
    if not rounds:
        row_files.files(folder)  # InputError where it holds no run
    hiding = Hiding(facts.values())
    with whole(out) as partial, zipfile.ZipFile(partial, "w") as archive:
        _put(archive, ABOUT, to_json(About(FORMAT, version("phaseload"))))
        if rounds_json.is_series(folder):
            _put(archive, rounds_json.FILE, to_json(hiding.series(rounds_json.read(folder))))
        for prefix, path in parts.items():
            if path in facts:
                _put(archive, prefix + run_json.FILE, to_json(hiding.run(facts[path])))
            for name, data in _files(path, hiding):
                _put(archive, prefix + name, data)


def _files(folder: Path, hiding: Hiding) -> Iterator[tuple[str, bytes]]:
    """What lies beside run.json."""
    if (path := folder / DIGESTS).exists():
        try:
            digests = from_json(DigestsFile, regular(path).read_bytes(), str(path))
            yield DIGESTS, to_json(hiding.digests(digests), indent=False)
        except (OSError, InputError):  # reports make them again from the rows
            pass
    if (path := folder / telemetry.FILE).exists():
        readings = (hiding.reading(reading).to_json() for reading in telemetry.read(path))
        yield telemetry.FILE, b"".join(orjson.dumps(row) + b"\n" for row in readings)
    paths = sorted((folder / row_files.FOLDER).glob("*.parquet"))
    named = all(re.fullmatch(ROWS, path.name) for path in paths)
    for number, path in enumerate(paths):
        name = path.name if named else f"0-{number:05d}.parquet"
        yield f"{row_files.FOLDER}/{name}", _rows(path, hiding)


def _rows(path: Path, hiding: Hiding) -> bytes:
    """One row file. One that can't be read stays one that can't be read: reports name it."""
    try:
        rows = row_files.read_file(path)
    except InputError:
        return b""
    out = BytesIO()
    pq.write_table(hiding.rows(rows), out, compression="zstd")
    return out.getvalue()


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.create_system, entry.external_attr = 3, PLAIN_FILE
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(".parquet") else zipfile.ZIP_DEFLATED
    archive.writestr(entry, data, compresslevel=9)


def unpacked(path: Path) -> tempfile.TemporaryDirectory[str]:
    """The run's folder that is in a bundle, for as long as the result lives. Raises InputError for what is no bundle,
    or a damaged one."""
    into = tempfile.TemporaryDirectory(prefix="phaseload-")
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            _unpack(archive, path, Path(into.name))
    except BaseException as problem:
        into.cleanup()
        if isinstance(problem, BROKEN) and not isinstance(problem, InputError):
            raise _unusable(path, f"not a readable bundle: {problem}") from None
        raise
    return into


def _unpack(archive: zipfile.ZipFile, path: Path, into: Path) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if ABOUT not in names:
        raise _unusable(path, "not a bundle: it has no bundle.json")
    if odd := [name for name in names if not NAME.fullmatch(name)]:
        raise _unusable(path, f"{odd[0][:80]!r} is no file of a bundle")
    if len(set(names)) < len(names) or len(names) > MOST:
        raise _unusable(path, f"{len(names):,} files, {len(set(names)):,} different: at most {MOST:,} are taken")
    about = from_json(About, _read(archive, archive.getinfo(ABOUT), path, LARGEST_TEXT), f"{path}, {ABOUT}")
    if about.format != FORMAT:
        raise _unusable(path, f"a bundle of format {about.format}, this version reads {FORMAT}")
    left = LARGEST
    for entry in entries:
        rows = entry.filename.endswith(".parquet")
        stored = entry.compress_type == zipfile.ZIP_STORED  # no larger in memory than in the file
        data = _read(archive, entry, path, left if rows and stored else min(left, LARGEST_TEXT))
        left -= len(data)
        if rows and data:
            _check_rows(data, path, entry.filename)
        target = into / entry.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, most: int) -> bytes:
    with archive.open(entry) as member:
        data = member.read(most + 1)
    if len(data) > most:
        raise _unusable(path, f"{entry.filename} is larger than {most:,} bytes")
    return data


def _check_rows(data: bytes, path: Path, name: str) -> None:
    """Rows that claim more values than their bytes can hold fill the memory when they are read."""
    try:
        facts = pq.read_metadata(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise _unusable(path, f"{name} is no Parquet file: {problem}") from None
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    most = SPARE + DENSEST * len(data)
    values = sum(column.num_values for column in columns) // max(1, facts.num_columns)
    size = sum(column.total_uncompressed_size for column in columns)
    if facts.num_rows > most or values > most or size > 8 * most:
        raise _unusable(path, f"{name} claims {max(facts.num_rows, values):,} values in {len(data):,} bytes")


def _unusable(path: Path, problem: str) -> InputError:
    return InputError(problem, where=str(path), remedy="make it with `phaseload bundle`")
