"""Bytes of files, in and out. In: `sources` of a trace, which are a file, a folder or standard input; plain, gzip or
zstd, recognised by content; a user's settings in TOML. Out: `write_whole`, after which a file is there whole or not
at all.

A `Source` can be opened again and again from its start (the fast reader of CSV hands over to the careful one when a
row is bad), so standard input is first copied to an unnamed temporary file.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from .errors import InputError

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
BUFFER = 1 << 20
HEAD = 65536  # bytes by which a format is recognised
LINE_LIMIT = 64 << 20  # bytes; a longer line is no row of a trace


class Source:
    """One stream of bytes with a name for messages. `head` is its first 64 KiB, decompressed."""

    def __init__(self, name: str, file: Path | IO[bytes]) -> None:
        self.name, self._file = name, file
        with self.open() as stream:
            self.head = stream.read(HEAD)

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """The decompressed bytes from their start. Damaged or unreadable files raise InputError; so does what can be
        read only once, before it is opened: a FIFO that nobody writes would never open."""
        import pyarrow as pa  # the help, which is there at once, reads files too

        path = self._file
        if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError("can be read only once", where=self.name, remedy="pipe it to standard input and name it -")
        try:
            with self._raw() as raw:
                start = raw.read(4)
                raw.seek(0)
                codec = next((codec for magic, codec in MAGIC.items() if start.startswith(magic)), None)
                # Arrow's stream has read, readinto and close, all that a BufferedReader needs
                plain: Any = codec and pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)
                yield io.BufferedReader(plain, BUFFER) if codec else raw
        except FileNotFoundError:
            raise InputError("no such file", where=self.name, remedy="check the path") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"can't be read: {reason}", where=self.name, remedy="check the file") from None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(line number from 1, line without its end), blank lines left out."""
        with self.open() as stream:
            number = 0
            while line := stream.readline(LINE_LIMIT):
                number += 1
                if len(line) == LINE_LIMIT:
                    raise InputError("line longer than 64 MiB", where=self.name, line=number, remedy="not a trace?")
                if stripped := line.strip():
                    yield number, stripped.removeprefix(b"\xef\xbb\xbf")

    def _raw(self) -> io.BufferedReader:
        if isinstance(self._file, Path):
            return io.BufferedReader(io.FileIO(self._file), BUFFER)
        self._file.seek(0)
        return io.BufferedReader(io.FileIO(os.dup(self._file.fileno())), BUFFER)


def sources(name: str) -> list[Source]:
    """The files that a user's TRACE names: `-`, one file, or all files of a folder (hidden ones left out)."""
    if name == "-":
        copy = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as its Source)
        shutil.copyfileobj(sys.stdin.buffer, copy)
        return [Source("standard input", copy)]
    path = Path(name)
    if not path.is_dir():
        return [Source(name, path)]
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    if not files:
        raise InputError("the folder holds no files", where=name, remedy="name a trace file")
    return [Source(str(p), p) for p in files]


def regular(path: str | Path) -> Path:
    """The path, unless something lies there that has no end or waits for a writer. Raises InputError."""
    if (path := Path(path)).exists() and not path.is_file():
        raise InputError("no regular file", where=str(path))
    return path


def _at_once(path: str, flags: int) -> int:
    """Opens without a wait for a FIFO's writer: one that nobody writes is empty, `<(...)` is read to its end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def read_text(path: str | Path) -> str:
    """A user's whole text file, or pipe. Raises InputError."""
    try:
        with open(path, encoding="utf-8", opener=_at_once) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"can't be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        raise InputError(problem, where=str(path)) from None


def toml(text: str, where: str, remedy: str = "") -> dict[str, Any]:
    """The tables of a TOML file's text. Raises InputError with file and line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else None
        raise InputError(f"not TOML: {error}", where=where, line=line, remedy=remedy) from None


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file to be written, which then takes the place of `path`: a reader, or a kill, meets what was there before
    or all of this. The folder may be a stranger's: no link that lies in it is followed."""
    partial = path.with_name(f"{path.name}.{token_hex(8)}.partial")
    partial.touch(exist_ok=False)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    with whole(path) as partial:
        partial.write_bytes(data)
