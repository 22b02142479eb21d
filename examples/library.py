"""phaseload as a library: look at a trace, replay it, read the figures, judge them, and go through the rows.

It needs no GPU and no server, and takes about 10 seconds: `python examples/library.py`. In a notebook each part below
is a cell; Locust runs in a process of its own, so nothing is patched in yours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from loadgen import Load, replay
from reports import judge, summarise
from targets import Target
from traces import cap_context, describe, open_trace


@contextmanager
def simulated(profile: str, model: str) -> Iterator[str]:
    """The URL of a simulated endpoint, which ends with the block. With a server of your own, name its URL instead."""
    command = [sys.executable, "-m", "loadgen", "serve", profile, "--model", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def main(folder: Path) -> bool:
    """Did every gate hold? The run is kept in `folder`."""
    # What should happen: five seconds of a bundled workload; a path reads any known trace format.
    trace = cap_context(open_trace("azure-conv", until=5), 4096)
    statistics = describe(trace)
    print(f"{trace.name}: {statistics.requests} requests in {statistics.span_s:.1f} s")
    if statistics.arrivals:
        print(f"CV of the gaps {statistics.arrivals.cv:.2f} (Poisson 1)")

    # Replay it at twice its speed, and wait for the end.
    with simulated("h100", "llama3-8b") as url:
        run = replay(trace, Target("h100", url, "llama3-8b"), Load(speedup=2), out=folder)

    # What it meant: figures of each target in each load step, in seconds.
    for result in summarise(run).results:
        ttft, tpot = result.quantile("ttft", 0.5), result.quantile("tpot", 0.5)
        print(f"{result.target}: prefill TTFT p50 {ttft.value:.3f} s, decode TPOT p50 {tpot.value:.4f} s")

    # Does it meet the objectives? `phaseload gate` decides the same from the run's folder.
    verdicts = judge(run, ["ttft p50 < 10s", "errors < 20%"])
    for verdict in verdicts:
        print(f"{verdict.gate.text}: {verdict.decision}")

    # A row a request, as an Arrow table: `.to_pandas()` in a notebook.
    rows = run.exchanges()
    print(f"{rows.num_rows} rows of {rows.num_columns} columns; the report is {folder / 'report.html'}")
    return all(verdict.decision == "pass" for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp()) / "run"))
