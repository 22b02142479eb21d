"""What should happen: requests, traces, their readers, transforms, synthesis and prompts.

    from traces import open_trace, pace, write

    trace = open_trace("azure-conv", until=60)           # a file or folder of any known format, or a bundled workload
    write(pace(trace, rate=10.0, seed=1), "steady.parquet")

Instants and gaps in a `Trace` are integer nanoseconds from its start; durations that a user names are float seconds.
What can't be used raises `InputError`, with file, line and remedy. Nothing is imported before it is used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InputError as InputError
    from .errors import PhaseloadError as PhaseloadError
    from .errors import RunFailed as RunFailed
    from .prompts.corpus import Corpus as Corpus
    from .prompts.prompts import Prompts as Prompts
    from .reading import open_trace as open_trace
    from .statistics import Statistics as Statistics
    from .statistics import describe as describe
    from .synthesis.fit import fit as fit
    from .synthesis.workload import Workload as Workload
    from .synthesis.workload import synthesise as synthesise
    from .trace import Request as Request
    from .trace import Trace as Trace
    from .trace import build as build
    from .transforms import cap_context as cap_context
    from .transforms import clip as clip
    from .transforms import limit as limit
    from .transforms import merge as merge
    from .transforms import only as only
    from .transforms import pace as pace
    from .transforms import repeat as repeat
    from .transforms import scale_rate as scale_rate
    from .transforms import speedup as speedup
    from .writing import write as write

_HOMES = {
    "errors": ("InputError", "PhaseloadError", "RunFailed"),
    "prompts.corpus": ("Corpus",),
    "prompts.prompts": ("Prompts",),
    "reading": ("open_trace",),
    "statistics": ("Statistics", "describe"),
    "synthesis.fit": ("fit",),
    "synthesis.workload": ("Workload", "synthesise"),
    "trace": ("Request", "Trace", "build"),
    "transforms": ("cap_context", "clip", "limit", "merge", "only", "pace", "repeat", "scale_rate", "speedup"),
    "writing": ("write",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
