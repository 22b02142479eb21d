"""How often is an endpoint of known use called steady, drifting, overloaded? Virtual time, fixed seeds.

Cells: `bench._decisions`, Poisson arrivals. Windows of 2 and 10 minutes after a warm-up of 120 s.

    python -m bench.steadiness [--seeds 40] [--processes 2] [--endpoint NAME]...

Exits with 1 where more than 2 % (and two standard errors) of windows at 30 and 60 % use aren't called steady, or fewer
than 90 % at 120 % overloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import sqrt

from reports.analysis.steadiness import State

from ._decisions import ENDPOINTS, WINDOWS_S, Cell, record

FIRST_SEED = 5000
USES = (0.3, 0.6, 0.9, 1.2)
WRONG, FOUND = 0.02, 0.9
CALM = 0.6


def states(cell: Cell, seed: int) -> list[State]:
    """Of one run's windows."""
    run = record(cell, seed)
    return [run.states[seconds].state for seconds in WINDOWS_S]


def main() -> bool:
    parser = argparse.ArgumentParser(prog="python -m bench.steadiness")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--endpoint", choices=ENDPOINTS, action="append")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    slack = 2 * sqrt(WRONG * (1 - WRONG) / options.seeds)
    print(
        f"{options.seeds} seeds a cell from {FIRST_SEED}\n{'endpoint':12}{'use':>5}  window  steady drifting overloaded"
    )
    missed = False
    with ProcessPoolExecutor(options.processes) as pool:
        for use in USES:
            for endpoint in options.endpoint or ENDPOINTS:
                runs = list(pool.map(partial(states, Cell(endpoint, use, "poisson")), seeds, chunksize=5))
                for place, seconds in enumerate(WINDOWS_S):
                    counts = Counter(run[place] for run in runs)
                    share = {state: counts[state] / len(runs) for state in State}
                    words = f"{share[State.STEADY]:8.0%}{share[State.DRIFTING]:9.0%}{share[State.OVERLOADED]:11.0%}"
                    print(f"{endpoint:12}{use:5.0%}{seconds:6} s{words}", flush=True)
                    missed |= use <= CALM and share[State.STEADY] < 1 - WRONG - slack
                    missed |= use > 1 and share[State.OVERLOADED] < FOUND
    return missed


if __name__ == "__main__":
    sys.exit(main())
