"""run.json: what a run was, written when it starts, completed when it ends; docs/contracts.md lists its fields."""

from __future__ import annotations

import os
import platform
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq

from reports.store.digests import Digests
from traces.files import write_whole
from traces.transforms import part_of

from .. import plan as plans
from ..machine import cpu
from ..plan import Plan

if TYPE_CHECKING:
    from .coordinator import WorkerState

NAMED = 1000  # missing requests that are listed; all of them are counted
PACKAGES = ("phaseload", "locust", "gevent", "numpy", "pyarrow", "fastdigest", "httptools", "orjson")


class Record:
    """The run.json of one run."""

    def __init__(self, folder: Path, plan: Plan, workers: int) -> None:
        self.folder, self.plan, self.shards = folder, plan, workers
        self.salt = f"{plan.name}-{secrets.token_hex(4)}" if plan.salt == "auto" else plan.salt
        self.about: dict[str, Any] = {
            "name": folder.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": version("phaseload"),
            "seed": plan.seed,
            "salt": self.salt,
            "prompts": plan.prompts,
            "slo": list(plan.slo),
            "goodput": list(plan.goodput),
            **plan.record,
            "targets": [spec.to_json() | plan.record.get("embedded", {}).get(spec.name, {}) for spec in plan.targets],
            "phases": [],
            "workers": [],
            "ended": "running",
            "machine": machine(),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        }
        self.about.pop("embedded", None)
        self.write()

    def write(self) -> None:
        facts = orjson.dumps(self.about, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        write_whole(self.folder / "run.json", facts)

    def phase_started(self, number: int, start: int, origin: int) -> None:
        """`start` in ns from the run's start, `origin` in ns of CLOCK_REALTIME."""
        phase = self.plan.phases[number]
        self.about["clock"] = {"origin_ns": origin}
        planned: Counter[str] = Counter()
        for leg in phase.legs:
            planned[leg.target.name] += leg.requests
        self.about["phases"].append(
            {
                "name": phase.name,
                "load": phase.load,
                "start": start,
                "window": [start + phase.warmup, None if phase.end is None else start + phase.end],
                "end": None,
                "warmup_s": phase.warmup_s,
                "drain_s": phase.drain_s,
                "planned": dict(planned),
                "unsent": {},
            }
        )
        self.write()

    def unsent(self, number: int, counts: Mapping[str, int]) -> None:
        """What a worker was planned to send in a phase and hadn't by its end; `phase_over` writes it."""
        of_phase = self.about["phases"][number]["unsent"]
        for target, count in counts.items():
            of_phase[target] = of_phase.get(target, 0) + count

    def phase_over(self, number: int, at: int) -> None:
        phase = self.about["phases"][number]
        if phase["end"] is None:
            phase["end"] = at
            phase["window"][1] = phase["window"][1] or at
            self.write()

    def complete(self, workers: Iterable[WorkerState], digests: Digests, interrupted: bool, origin: int) -> None:
        workers = list(workers)
        for worker in workers:
            final = worker.final or {}
            written = self._rows_of(worker.number)
            if worker.final is not None and written < int(final["rows"]):
                worker.lost = f"{int(final['rows']) - written} of its rows are gone"
            self.about["workers"].append(
                {
                    "shard": worker.number,
                    "pid": worker.pid,
                    "host": worker.host,
                    "rows": written,
                    "lost": worker.lost or None,
                    "clock_offset_s": final.get("clock_offset_s"),
                    "clock_offset_error_s": final.get("clock_offset_error_s"),
                    "counts": final.get("counts", {}),
                    "diagnostics": final.get("diagnostics", {}),
                }
            )
        beyond = [str(one["diagnostics"].get("beyond_certificate") or "") for one in self.about["workers"]]
        self.about["certificate_exceeded"] = next(filter(None, beyond), "")
        missing, names = self._missing([worker.number for worker in workers if worker.lost or interrupted])
        self.about |= {"missing": missing, "missing_requests": names}
        lost = any(worker.lost for worker in workers)
        self.about["ended"] = "worker_lost" if lost else "interrupted" if interrupted else "completed"
        digests.save(self.folder / "digests.json")
        self.write()

    def fail(self) -> None:
        self.about["ended"] = "worker_lost"
        self.write()

    def _rows_of(self, shard: int) -> int:
        files = (self.folder / plans.ROWS).glob(f"{shard}-*.parquet")
        return sum(pq.read_metadata(path).num_rows for path in files)

    def _missing(self, shards: list[int]) -> tuple[dict[str, int], list[int]]:
        """What these shards were planned to send and didn't report: by target, and some of them by index."""
        counts: Counter[str] = Counter()
        names: list[int] = []
        for number in shards:
            seen = set(self._recorded(number))
            for phase in self.plan.phases:
                for leg in phase.legs:
                    mine = part_of(plans.unpack(self.folder / leg.file), number, self.shards)
                    asked = [(phase.name, leg.target.name, index) for index in mine.column("index").tolist()]
                    absent = [index for step, target, index in asked if (step, target, index) not in seen]
                    counts[leg.target.name] += len(absent)
                    names += absent[: NAMED - len(names)]
        return dict(counts), names

    def _recorded(self, shard: int) -> Iterator[tuple[str, str, int]]:
        for path in (self.folder / plans.ROWS).glob(f"{shard}-*.parquet"):
            rows = pq.read_table(path, columns=["step", "target", "index"])
            yield from zip(*(rows[name].to_pylist() for name in ("step", "target", "index")), strict=True)


def machine() -> dict[str, Any]:
    """What the load generator ran on."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
    }
