"""The check of the installation: the four packages must be ours.

Their names are ordinary words, and other distributions install `traces` or `reports`: one that is installed later into
the same environment silently overwrites ours. They must lie side by side.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from traces.errors import InputError

ROOMS = ("loadgen", "reports", "targets", "traces")


def check() -> None:
    """InputError that names the foreign package."""
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != home:
            raise InputError(
                f"the package {room!r} is somebody else's",
                where=str(origin or room),
                remedy=f"expected it in {home}: install phaseload into an environment of its own",
            )
