"""What should happen: requests, traces, their readers, transforms, synthesis and prompts.

    from traces import open_trace, pace, write

    trace = open_trace("azure-conv", until=60)           # a file or folder of any known format, or a bundled workload
    write(pace(trace, rate=10.0, seed=1), "steady.parquet")

Instants and gaps in a `Trace` are integer nanoseconds from its start; durations that a user names are float seconds.
What can't be used raises `InputError`, with file, line and remedy. Nothing is imported before it is used (PEP 562).
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InputError, PhaseloadError, RunFailed
    from .fitting import fit
    from .prompts import Prompts
    from .reading import open_trace, write
    from .request import Request
    from .statistics import Statistics, describe
    from .trace import Trace, build
    from .transforms import cap_context, clip, limit, merge, only, pace, repeat, scale_rate, speedup, superpose
    from .words import Corpus
    from .workload import Workload, synthesise

__all__ = [
    "Corpus", "InputError", "PhaseloadError", "Prompts", "Request", "RunFailed", "Statistics", "Trace", "Workload",
    "build", "cap_context", "clip", "describe", "fit", "limit", "merge", "only", "open_trace", "pace",
    "repeat", "scale_rate", "speedup", "superpose", "synthesise", "write",
]  # fmt: skip


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A room's `__getattr__` and `__dir__`. `homes`: module -> the names that it defines, with blanks between."""
    home = {name: module for module, names in homes.items() for name in names.split()}

    def attribute(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{home[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute, lambda: sorted(home)


__getattr__, __dir__ = lazy(__name__, {
    "errors": "InputError PhaseloadError RunFailed", "fitting": "fit", "prompts": "Prompts",
    "reading": "open_trace write", "request": "Request", "statistics": "Statistics describe", "trace": "Trace build",
    "transforms": "cap_context clip limit merge only pace repeat scale_rate speedup superpose", "words": "Corpus",
    "workload": "Workload synthesise",
})  # fmt: skip
