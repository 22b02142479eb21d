"""What a run meant: its rows and facts, its summary, gates and paired comparisons, and the report.

    from reports import compare, judge, open_run, summarise

    run = open_run("runs/azure-conv-1")
    summary = summarise(run)                             # figures, with their intervals and the run's validity
    summary.results[0].quantile("ttft", 0.99).value      # seconds
    verdicts = judge(run, ["ttft p99 < 800ms"])          # one for each target and load step
    compare(run, open_run("runs/azure-conv-2"))          # the same requests in two runs, pair by pair
    run.exchanges()                                      # pyarrow.Table, a row for each exchange

Durations are float seconds, instants integer nanoseconds from the run's start; inf is unbounded, nan undefined. What
can't be used raises `traces.InputError`, with file, field and remedy. Nothing is imported before it is used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis.comparison import Comparison as Comparison
    from .analysis.comparison import compare as compare
    from .analysis.gates import Gate as Gate
    from .analysis.results import Result as Result
    from .analysis.summary import Summary as Summary
    from .analysis.summary import summarise as summarise
    from .analysis.validity import Validity as Validity
    from .analysis.verdicts import Verdict as Verdict
    from .analysis.verdicts import judge as judge
    from .store.run_folder import Run as Run
    from .store.run_folder import open_run as open_run

_HOMES = {
    "analysis.comparison": ("Comparison", "compare"),
    "analysis.gates": ("Gate",),
    "analysis.results": ("Result",),
    "analysis.summary": ("Summary", "summarise"),
    "analysis.validity": ("Validity",),
    "analysis.verdicts": ("Verdict", "judge"),
    "store.run_folder": ("Run", "open_run"),
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
