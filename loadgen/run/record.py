"""Writes a run's run.json: what is known when the run starts, each step as it starts and ends, and the run's end."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from .messages import Final

LISTED = 1000  # missing requests that are named by index; all of them are counted


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended: `final` None: it handed nothing over; `lost`: why it is gone, or ""."""

    number: int
    pid: int
    host: str
    final: Final | None
    lost: str


class Record:
    """The run.json of one run. Instants are nanoseconds from the run's start."""

    def __init__(self, folder: Path, plan: Plan, workers: int) -> None:
        self.folder, self.plan, self.workers = folder, plan, workers
        self.salt = f"{plan.name}-{secrets.token_hex(4)}" if plan.salt == "auto" else plan.salt
        self.facts = RunFacts(
            name=folder.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("phaseload"),
            seed=plan.seed,
            salt=self.salt,
            prompts=plan.prompts,
            slo=plan.slo,
            goodput=plan.goodput,
            argv=plan.argv,
            order=plan.order,
            json=plan.json,
            report=plan.report,
            closing=plan.closing,
            trace=plan.trace,
            targets=tuple(run_json.target_facts(target, plan.embedded.get(target.name)) for target in plan.targets),
            steps=(),
            workers=(),
            ended="running",
            machine=machine_facts(),
            versions=versions(),
        )
        self._steps: list[StepFacts] = []
        self._write()

    def step_started(self, number: int, start: int, origin: int) -> None:
        """`origin`: the run's start, nanoseconds of CLOCK_REALTIME."""
        step = self.plan.steps[number]
        planned: Counter[str] = Counter()
        for arm in step.arms:
            planned[arm.target.name] += arm.requests
        started = StepFacts(
            name=step.name,
            load=step.load,
            start=start,
            window=(start + step.warmup_ns, None if step.end_ns is None else start + step.end_ns),
            end=None,
            warmup_s=step.warmup_s,
            drain_s=step.drain_s,
            planned=dict(planned),
        )
        self._steps.append(started)
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

    def complete(self, workers: Sequence[WorkerEnd], digests: Digests, interrupted: bool) -> None:
        rows = {worker.number: self._rows_of(worker.number) for worker in workers}
        workers = [replace(worker, lost=worker.lost or _rows_gone(worker, rows[worker.number])) for worker in workers]
        missing, indices = self._missing([worker.number for worker in workers if worker.lost or interrupted])
        lost = any(worker.lost for worker in workers)
        digests.save(self.folder / "digests.json")
        finals = [worker.final for worker in workers if worker.final is not None]
        beyond = [final.diagnostics.beyond_certificate for final in finals if final.diagnostics is not None]
        self._write(
            workers=tuple(_worker_facts(worker, rows[worker.number]) for worker in workers),
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

    def _rows_of(self, worker: int) -> int:
        files = (self.folder / plans.ROWS).glob(f"{worker}-*.parquet")
        return sum(pq.read_metadata(path).num_rows for path in files)

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
        for path in (self.folder / plans.ROWS).glob(f"{worker}-*.parquet"):
            rows = pq.read_table(path, columns=["step", "target", "index"])
            yield from zip(*(rows[name].to_pylist() for name in ("step", "target", "index")), strict=True)


def _rows_gone(worker: WorkerEnd, written: int) -> str:
    gone = 0 if worker.final is None else worker.final.rows - written
    return f"{gone} of its rows are gone" if gone > 0 else ""


def _worker_facts(worker: WorkerEnd, rows: int) -> WorkerFacts:
    final = worker.final
    return WorkerFacts(
        number=worker.number,
        pid=worker.pid,
        host=worker.host,
        rows=rows,
        lost=worker.lost or None,
        clock_offset_s=None if final is None else final.clock_offset_s,
        clock_offset_error_s=None if final is None else final.clock_offset_error_s,
        counts={} if final is None else final.counts,
        diagnostics=None if final is None else final.diagnostics,
    )
