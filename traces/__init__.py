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
    from .errors import InputError, PhaseloadError, RunFailed
    from .fitting import fit
    from .formats.own import write
    from .prompts import Prompts
    from .reading import open_trace
    from .request import Request
    from .statistics import Statistics, describe
    from .trace import Trace, build
    from .transforms import cap_context, clip, limit, merge, only, pace, repeat, scale_rate, speedup
    from .words import Corpus
    from .workload import Workload, synthesise

__all__ = [
    "Corpus", "InputError", "PhaseloadError", "Prompts", "Request", "RunFailed", "Statistics", "Trace", "Workload",
    "build", "cap_context", "clip", "describe", "fit", "limit", "merge", "only", "open_trace", "pace",
    "repeat", "scale_rate", "speedup", "synthesise", "write",
]  # fmt: skip
_HOMES = {  # the module of each name; transforms of those that aren't here
    "InputError": "errors", "PhaseloadError": "errors", "RunFailed": "errors", "fit": "fitting", "write": "formats.own",
    "Prompts": "prompts", "open_trace": "reading", "Request": "request", "Statistics": "statistics",
    "describe": "statistics", "Trace": "trace", "build": "trace", "Corpus": "words", "Workload": "workload",
    "synthesise": "workload",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES.get(name, 'transforms')}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
