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

from typing import TYPE_CHECKING

from traces import lazy

if TYPE_CHECKING:
    from .analysis.capacity import CapacityResult
    from .analysis.comparison import Comparison, compare
    from .analysis.gate_grammar import Gate
    from .analysis.gates import Verdict
    from .analysis.results import Result
    from .analysis.summary import Summary, judge, summarise
    from .analysis.validity import Validity
    from .render.planning_page import Planning
    from .store.run_folder import Run, open_run

__all__ = [
    "CapacityResult", "Comparison", "Gate", "Planning", "Result", "Run", "Summary", "Validity", "Verdict",
    "compare", "judge", "open_run", "summarise",
]  # fmt: skip
__getattr__, __dir__ = lazy(__name__, {
    "analysis.capacity": "CapacityResult",
    "analysis.comparison": "Comparison compare", "analysis.gate_grammar": "Gate", "analysis.gates": "Verdict",
    "analysis.results": "Result",
    "analysis.summary": "Summary judge summarise", "analysis.validity": "Validity", "render.planning_page": "Planning",
    "store.run_folder": "Run open_run",
})  # fmt: skip
