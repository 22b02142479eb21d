"""The load generator as a library: traces are replayed through Locust, and what was measured comes back as a `Run`.

    from traces import open_trace
    from targets import Target
    from loadgen import Load, replay

    run = replay(open_trace("azure-conv", until=60), Target(url="http://127.0.0.1:8000", model="m"), Load(speedup=2))

`replay`, `bakeoff` and `capacity` start Locust in a fresh interpreter and wait for it, so that Locust, which patches
the standard library, is never imported into the caller's process; only a Locust file of one's own wants `TraceUser`,
which `from loadgen import *` therefore leaves out.
Each name is imported when it is first used: `import loadgen` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from traces import lazy

if TYPE_CHECKING:
    from .bakeoffs import bakeoff
    from .capacities import SearchTerms, capacity
    from .certificate import Certificate, certify
    from .options import Load, RunOptions
    from .plan import Plan
    from .processes import Workers
    from .replays import replay
    from .run.locust_user import TraceUser as TraceUser
    from .simulations import simulate
    from .sweeps import sweep

__all__ = [
    "Certificate", "Load", "Plan", "RunOptions", "SearchTerms", "Workers",
    "bakeoff", "capacity", "certify", "replay", "simulate", "sweep",
]  # fmt: skip

# The modules have other names than the functions: a submodule would hide a function of its name.
__getattr__, __dir__ = lazy(__name__, {
    "bakeoffs": "bakeoff", "capacities": "SearchTerms capacity", "certificate": "Certificate certify",
    "options": "Load RunOptions", "plan": "Plan", "processes": "Workers", "replays": "replay",
    "run.locust_user": "TraceUser", "simulations": "simulate", "sweeps": "sweep",
})  # fmt: skip
