"""The load generator as a library: traces are replayed through Locust, and what was measured comes back as a `Run`.

    from traces import open_trace
    from targets import Target
    from loadgen import Load, replay

    run = replay(open_trace("azure-conv", until=60), Target(url="http://127.0.0.1:8000", model="m"), Load(speedup=2))

`replay`, `bakeoff` and `capacity` start Locust in a fresh interpreter and wait for it, so that Locust, which patches
the standard library, is never imported into the caller's process; only a Locust file of one's own wants `TraceUser`.
Each name is imported when it is first used: `import loadgen` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bakeoffs import bakeoff
    from .capacities import CapacityResult, capacity
    from .certificate import Certificate, certify
    from .options import Load
    from .plan import Plan
    from .processes import Workers
    from .replays import replay
    from .run.locust_user import TraceUser
    from .simulation.run import simulate
    from .simulation.sweep import sweep

__all__ = [
    "CapacityResult", "Certificate", "Load", "Plan", "TraceUser", "Workers",
    "bakeoff", "capacity", "certify", "replay", "simulate", "sweep",
]  # fmt: skip

# The modules have other names than the functions: a submodule would hide a function of its name.
_HOMES = {
    "CapacityResult": "capacities",
    "Certificate": "certificate",
    "Load": "options",
    "Plan": "plan",
    "TraceUser": "run.locust_user",
    "Workers": "processes",
    "bakeoff": "bakeoffs",
    "capacity": "capacities",
    "certify": "certificate",
    "replay": "replays",
    "simulate": "simulation.run",
    "sweep": "simulation.sweep",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
