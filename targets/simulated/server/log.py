"""The server's own log: planned and actual instants side by side, a JSON object a line.

    {"id", "prompt", "output", "received", "arrival", "planned": [first, last], "actual": [first, last]}     a request
    {"step": [planned, begun, ended, streams]}                                                              a step sent

`received` is when the server began to read the request, `arrival` when it was understood and entered the engine.
Instants are nanoseconds since the epoch, so they can be held against a client's.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from ...clock import monotonic_ns, realtime_ns
from ..engine.job import Job


class Log:
    def __init__(self, path: str, origin: int) -> None:
        """`origin`: the engine's start on CLOCK_MONOTONIC."""
        self._file = Path(path).open("wb", buffering=1 << 20)  # noqa: SIM115 - closed by close
        self._origin = realtime_ns() - monotonic_ns() + origin

    def _at(self, seconds: float) -> int:
        return self._origin + round(seconds * 1e9)

    def request(self, id: str, job: Job, received: int, first: int, last: int) -> None:
        row = {"id": id, "prompt": job.prompt, "output": job.output, "received": received}
        row["arrival"] = self._at(job.arrival)
        row |= {"planned": [self._at(job.first), self._at(job.last)], "actual": [first, last]}
        self._file.write(orjson.dumps(row) + b"\n")

    def step(self, planned: float, begun: float, ended: float, streams: int) -> None:
        row = [self._at(planned), self._at(begun), self._at(ended), streams]
        self._file.write(orjson.dumps({"step": row}) + b"\n")

    def close(self) -> None:
        self._file.close()
