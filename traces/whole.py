"""`write_whole`: a file that is never seen half written."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Whoever reads meanwhile, or after a kill, finds what was there before, or all of this."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
