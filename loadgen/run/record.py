"""Writes a run's run.json: what is known when the run starts, each step as it starts and ends, and the run's end."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reports.store import run_json
from reports.store.digests import Digests
from reports.store.run_json import ClockFacts, RunFacts, StepFacts, WorkerFacts
from traces.transforms import part_of

from .. import plan as plans
from ..certificate import machine_facts, versions
from ..plan import Plan

LISTED = 1000  # missing requests that are named by index; all of them are counted


class Record:
    """The run.json of one run. Instants are nanoseconds from the run's start."""

    def __init__(self, folder: Path, plan: Plan, workers: int) -> None:
        self.folder, self.plan, self.workers = folder, plan, workers
        self.salt = f"{plan.name}-{secrets.token_hex(4)}" if plan.salt == "auto" else plan.salt
        targets = tuple(run_json.target_facts(target, plan.embedded.get(target.name)) for target in plan.targets)
        self.facts = RunFacts(
            name=folder.name, created=datetime.now(UTC).isoformat(timespec="seconds"), version=version("phaseload"),
            seed=plan.seed, salt=self.salt, prompts=plan.prompts, slo=plan.slo, goodput=plan.goodput, argv=plan.argv,
            order=plan.order, json=plan.json, report=plan.report, closing=plan.closing, trace=plan.trace,
            targets=targets, steps=(), workers=(), ended="running", machine=machine_facts(), versions=versions(),
        )  # fmt: skip
        self._steps: list[StepFacts] = []
        self._write()

    def step_started(self, number: int, start: int, origin: int) -> None:
        """`origin`: the run's start, nanoseconds of CLOCK_REALTIME."""
        step = self.plan.steps[number]
        window = (start + step.warmup_ns, None if step.end_ns is None else start + step.end_ns)
        planned = {arm.target.name: arm.requests for arm in step.arms}
        self._steps.append(StepFacts(step.name, step.load, start, window, None, step.warmup_s, step.drain_s, planned))
        self._write(clock=ClockFacts(origin))

    def unsent(self, number: int, counts: Mapping[str, int]) -> None:
        """What a worker was planned to send in a step and hadn't by its end; `step_over` writes it."""
        step = self._steps[number]
        total = {target: step.unsent.get(target, 0) + count for target, count in counts.items()}
        self._steps[number] = replace(step, unsent={**step.unsent, **total})

    def step_over(self, number: int, at: int) -> None:
        """Every worker that is left has finished the step. Later calls for the same step change nothing."""
        step = self._steps[number]
        if step.end is None:
            begin, end = step.window
            self._steps[number] = replace(step, end=at, window=(begin, end or at))
            self._write()

    def complete(self, workers: Iterable[WorkerFacts], digests: Digests, interrupted: bool) -> None:
        workers = tuple(map(self._checked, workers))
        missing, indices = self._missing([worker.number for worker in workers if worker.lost or interrupted])
        lost = any(worker.lost for worker in workers)
        digests.save(self.folder / "digests.json")
        beyond = (each.diagnostics.beyond_certificate for each in workers if each.diagnostics is not None)
        self._write(
            workers=workers,
            certificate_exceeded=next(filter(None, beyond), ""),
            missing=missing,
            missing_requests=tuple(indices),
            ended="worker_lost" if lost else "interrupted" if interrupted else "completed",
        )

    def fail(self) -> None:
        """The run could not be completed."""
        self._write(ended="worker_lost")

    def _write(self, **changes: Any) -> None:
        self.facts = replace(self.facts, steps=tuple(self._steps), **changes)
        run_json.write(self.folder, self.facts)

    def _row_files(self, worker: int) -> Iterator[Path]:
        return (self.folder / plans.ROWS).glob(f"{worker}-*.parquet")

    def _checked(self, worker: WorkerFacts) -> WorkerFacts:
        """The worker with as many rows as its files hold: it is lost where they are fewer than it has written."""
        rows = sum(pq.read_metadata(path).num_rows for path in self._row_files(worker.number))
        gone = worker.rows - rows
        return replace(worker, rows=rows, lost=worker.lost or (f"{gone} of its rows are gone" if gone > 0 else None))

    def _missing(self, workers: Sequence[int]) -> tuple[dict[str, int], list[int]]:
        """What these workers were planned to send and didn't report: by target, and some of them by index."""
        counts: Counter[str] = Counter()
        indices: list[int] = []
        for number in workers:
            seen = set(self._recorded(number))
            for step in self.plan.steps:
                for arm in step.arms:
                    planned = part_of(plans.unpack(self.folder / arm.file), number, self.workers)
                    keys = [(step.name, arm.target.name, index) for index in planned.column("index").tolist()]
                    absent = [key[2] for key in keys if key not in seen]
                    counts[arm.target.name] += len(absent)
                    indices += absent[: LISTED - len(indices)]
        return dict(counts), indices

    def _recorded(self, worker: int) -> Iterator[tuple[str, str, int]]:
        for path in self._row_files(worker):
            rows = pq.read_table(path, columns=["step", "target", "index"])
            yield from zip(*(rows[name].to_pylist() for name in ("step", "target", "index")), strict=True)
