"""Plausible runs without a server: exchanges as three kinds of endpoint would give them, and a whole run folder.

The endpoints are crude on purpose (a prefill rate, a decode time that grows with the number in flight, or a rack that
serves one at a time); they only have to have the shapes that reports must show: a batch-1 winner that loses its lead
under load, failures, a cache, a client that is late.
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reports.analysis.summary import Summary, save
from reports.render import html
from reports.store import durations, row_files, run_folder
from reports.store.digests import Digests
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange

S = 1_000_000_000
LENGTHS = {"min": 8, "p50": 735.0, "p90": 2100.0, "p99": 3800.0, "max": 3800, "mean": 1000.0, "total": 600_000}
DIAGNOSTICS = {"time_source": "kernel", "reads": 9000, "reads_unstamped": 0, "reads_fast": 8000,
               "most_tokens_per_s": 900.0, "most_streams": 40, "connections_opened": 40, "connections_reused": 560,
               "reconnected": 0, "internal_faults": 0, "stalls_over_10ms": 0, "longest_stall_s": 0.001,
               "wall_s": 70.0, "open_files_limit": 1024, "collections": 3, "collections_s": 0.01,
               "longest_collection_s": 0.004}  # fmt: skip
MS = 1_000_000
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> \"' $\\frac{ {{7*7}} {% x %} & _hidden \x1b[31m"


@dataclass
class Made:
    """A crude endpoint; seconds and tokens per second."""

    name: str
    prefill: float  # prompt tokens per second
    tpot: float  # at batch 1
    per_peer: float = 0.0  # added to the TPOT for each other request in flight
    lanes: int | None = None  # serves that many at a time; None: batches all
    transfer: float = 0.0
    fails: float = 0.0
    events: int = 1  # token-bearing events in a read
    reports_server: bool = False


GPU = Made("h100", prefill=24_000, tpot=0.0062, per_peer=0.0001, fails=0.004)
RACK = Made("groqrack", prefill=7_200, tpot=0.0044, lanes=14, reports_server=True)
HYBRID = Made("gpu+groq", prefill=24_000, tpot=0.0044, lanes=16, transfer=0.06)


def trace(seed: int, rate: float, seconds: float) -> Iterator[tuple[int, int, int]]:
    """(due, prompt tokens, output tokens), Poisson arrivals, lognormal lengths like a conversation's."""
    rng = np.random.default_rng(seed)
    due = 0.0
    while (due := due + rng.exponential(1 / rate)) < seconds:
        prompt, output = np.exp(rng.normal([6.6, 4.9], [0.9, 0.8]))
        yield int(due * S), int(np.clip(prompt, 8, 3800)), int(np.clip(output, 2, 500))


def exchanges(
    made: Made,
    *,
    seed: int = 7,
    rate: float = 10.0,
    seconds: float = 60.0,
    warmup: float = 3.0,
    step: str = "1x",
    start: int = 0,
    late: float = 0.0003,
    blur: int = 0,
) -> list[Exchange]:
    """One endpoint's rows. `late`: mean lateness (s); `blur`: width of the brackets (ns) of shared reads."""
    rng = np.random.default_rng(seed + len(made.name))
    lanes = [0] * (made.lanes or 0)
    active: list[int] = []
    rows = []
    for index, (offset, prompt, output) in enumerate(trace(seed, rate, seconds)):
        due = start + offset
        sent = due + int(rng.exponential(late) * S) + 80_000
        while active and active[0] <= sent:
            heapq.heappop(active)
        begin = max(sent, heapq.heappop(lanes)) if made.lanes else sent
        tpot = made.tpot + made.per_peer * len(active)
        first = begin + int((prompt / made.prefill + 0.004 + made.transfer) * S * rng.lognormal(0, 0.03))
        row = make_exchange(index, made.name, due, prompt, output, step=step,
                       counted=offset >= warmup * S, started=sent - 60_000, connected=sent - 30_000, sent=sent,
                       body_sent=sent + 40_000, headers_at=sent + MS, status=200, outcome=Outcome.OK,
                       finish_reason="length", usage_prompt=prompt + 3, usage_output=output,
                       bytes_received=output * 180, chars=output * 4, model="made-7b", reused=index > 20)  # fmt: skip
        _stream(row, made, first, tpot, rng, blur)
        if made.reports_server:
            row.server_queue, row.server_prefill = (begin - sent) / S, (first - begin) / S
            row.server_ttft = (first - sent) / S
        if rng.random() < made.fails:
            _fail(row, rng)
        row.done = (row.last_token or row.sent or 0) + 200_000
        heapq.heappush(active, row.done)
        if made.lanes:
            heapq.heappush(lanes, row.done)
        rows.append(row)
    return rows


def _stream(row: Exchange, made: Made, first: int, tpot: float, rng: np.random.Generator, blur: int) -> None:
    reads = max(1, row.call.request.output_tokens // made.events)
    gaps = (tpot * made.events * S * rng.lognormal(0, 0.02, reads - 1)).astype(np.int64)
    row.token_at = array("q", (first + np.concatenate([[0], np.cumsum(gaps)])).astype(np.int64).tolist())
    row.token_events = array("i", [made.events] * reads)
    row.token_events[-1] += row.call.request.output_tokens - reads * made.events
    row.first_lag = int(rng.exponential(120_000))
    row.max_lag = row.first_lag * 3
    row.first_after = row.token_at[0] - blur if blur else row.token_at[0]
    row.last_after = row.token_at[-1] - blur if blur else row.token_at[-1]
    if blur:
        row.token_events[0] = max(2, row.token_events[0])


def _fail(row: Exchange, rng: np.random.Generator) -> None:
    row.outcome = Outcome(rng.choice([Outcome.HTTP_ERROR, Outcome.TRUNCATED, Outcome.TIMEOUT]))
    row.error = f"made to fail: {row.outcome}"
    row.status = 500 if row.outcome is Outcome.HTTP_ERROR else 200
    keep = 0 if row.outcome is not Outcome.TRUNCATED else len(row.token_at) // 2
    del row.token_at[keep:], row.token_events[keep:]
    row.usage_output = row.usage_prompt = None


def run(
    folder: Path,
    targets: tuple[Made, ...] = (GPU, RACK, HYBRID),
    *,
    steps: dict[str, float] | None = None,
    seconds: float = 60.0,
    seed: int = 7,
    ended: str = "completed",
    change: Callable[[dict[str, object]], None] | None = None,
    **more: float,
) -> Path:
    """A whole run folder, as `phaseload bakeoff` leaves it before its summary. steps: load step -> requests/s."""
    steps = {"1x": 10.0} if steps is None else steps
    writer, phases, digests = row_files.Writer(folder, 0), [], Digests()
    for number, (step, rate) in enumerate(steps.items()):
        start = int(number * (seconds + 10) * S)
        planned = {}
        for made in targets:
            rows = exchanges(made, seed=seed + number, rate=rate, seconds=seconds, step=step, start=start, **more)  # type: ignore[arg-type]
            planned[made.name] = len(rows)
            for row in rows:
                writer.append(row)
                digests.add(row)
        warmup = float(more.get("warmup", 3.0))
        phases.append({"name": step, "load": f"{rate:g} requests/s", "start": start,
                       "end": start + int((seconds + 8) * S),
                       "window": [start + int(warmup * S), start + int(seconds * S)], "warmup_s": warmup, "drain_s": 60,
                       "planned": planned})  # fmt: skip
        writer.flush()
    facts = facts_of(targets, phases, writer.rows, seed, ended)
    if change is not None:
        change(facts)
    digests.save(folder / "digests.json")
    (folder / "run.json").write_text(json.dumps(facts, indent=1))
    return folder


def rounds(folder: Path, count: int = 3, *, seed: int = 7, **more: Any) -> Path:
    """A folder of rounds, each a run of another seed, an hour after the one before; `more`: as for `run`."""
    change = more.pop("change", None)
    for number in range(1, count + 1):

        def later(facts: dict[str, Any], number: int = number) -> None:
            facts["clock"]["origin_ns"] += number * 3600 * S
            if change is not None:
                change(facts)

        run(folder / f"round-{number}", seed=seed + 100 * number, change=later, **more)
    return folder


SLO = ("ttft p50 < 60ms", "ttft p99 < 10s", "tpot p50 < 20ms")


def judged_rounds(folder: Path) -> Path:
    """Two rounds of two targets and two loads; of twelve verdicts some pass, some fail and some are none."""

    def change(facts: dict[str, Any]) -> None:
        facts.update(slo=list(SLO), goodput=["ttft:800 tpot:40"])
        facts["phases"][1]["factor"] = 2.0

    return rounds(folder, 2, targets=(GPU, RACK), steps={"base": 8.0, "2x": 20.0}, seconds=30.0, change=change)


def hostile(folder: Path) -> Path:
    """A run whose every text from outside is an attack."""
    evil = Made(EVIL, prefill=9000, tpot=0.005)

    def change(facts: dict[str, Any]) -> None:
        facts.update(name=EVIL, argv=[EVIL], slo=["ttft p50 < 9s"], salt=EVIL, versions={EVIL: EVIL})
        facts["trace"].update(name=EVIL, source=EVIL, transforms=[EVIL], notes={EVIL: [EVIL]})
        facts["workers"][0].update(host=EVIL, counts={EVIL: 1})
        facts["machine"].update(host=EVIL, system=EVIL, cpu=EVIL)

    run(folder, (evil, GPU), steps={EVIL: 9.0}, seconds=30, change=change)
    writer = row_files.Writer(folder, 7)
    for index in range(9000, 9020):
        writer.append(make_exchange(index, EVIL, 5 * S, 9, 9, step=EVIL,
                                    outcome=Outcome.HTTP_ERROR, error=EVIL * 200, model=EVIL))  # fmt: skip
    writer.flush()
    return folder


def facts_of(
    targets: tuple[Made, ...], phases: list[dict[str, object]], rows: int, seed: int, ended: str
) -> dict[str, object]:
    return {
        "name": "made", "created": "2026-11-21T01:30:00+00:00", "argv": ["phaseload", "bakeoff"], "version": "0.1.0",
        "seed": seed, "salt": "made-1", "order": "parallel", "ended": ended, "phases": phases, "missing": {},
        "missing_requests": [], "slo": [], "goodput": [], "clock": {"origin_ns": 1_795_224_600 * S},
        "machine": {"host": "made", "cpu": "a made machine", "cores": 2, "usable_cores": 2, "system": "Linux"},
        "versions": {"python": "3.11", "phaseload": "0.1.0"},
        "trace": {"name": "azure-conv", "source": "bundled", "fingerprint": "0123456789abcdef", "requests": 600,
                  "span_s": 60.0, "transforms": ["cap_context 4096"],
                  "profile": {"requests": 600, "span_s": 60.0, "rate": 10.0, "arrivals": None, "prompt_tokens": LENGTHS,
                              "output_tokens": LENGTHS, "spearman": None, "sessions": None, "prefix": None,
                              "timeline": None}},
        "targets": [{"name": made.name, "url": f"http://127.0.0.1:8{number:03d}", "model": "made-7b",
                     "endpoint_type": "chat", "embedded": True, "standing": "assumed", "description": "a made endpoint",
                     "price_per_hour": 2.65 * (number + 1), "watts": 700.0}
                    for number, made in enumerate(targets)],
        "workers": [{"shard": 0, "pid": 4711, "host": "localhost", "rows": rows, "lost": None, "clock_offset_s": 0.0,
                     "clock_offset_error_s": 0.0, "counts": {"done": rows},
                     "diagnostics": {**DIAGNOSTICS, "cpu_s": 12.5, "clock_steps": []}}],
    }  # fmt: skip


def summarise(folder: Path, objectives: Mapping[str, float] | None = None) -> Summary:
    """As `phaseload report` makes its summary."""
    return save(run_folder.open_run(folder), objectives)


def page(folders: Sequence[Path], out: Path | None = None) -> Path:
    """And its page."""
    runs = [run_folder.open_run(folder) for folder in folders]
    return html.page(runs, [save(run) for run in runs], out)


def frame(folder: Path) -> pd.DataFrame:
    """All rows of a run with their figures."""
    return durations.joined([part for part, _ in durations.frames(folder)])


def restored(rows: pa.Table) -> Iterator[Exchange]:
    """The rows as Exchanges again."""
    restore: dict[str, Callable[[Any], Any]] = {
        "outcome": Outcome,
        "token_at": lambda v: array("q", v),
        "token_events": lambda v: array("i", v),
    }
    for row in rows.to_pylist():
        yield make_exchange(**{name: restore[name](value) if name in restore else value for name, value in row.items()})


def slowed(run: run_folder.Run, folder: Path, factor: float, **facts: Any) -> run_folder.Run:
    """The run again, each answer's instants `factor` times as far from the request's; `facts`: of run.json, or `model`
    of its targets."""
    table = run.exchanges()
    sent = np.asarray(table["sent"])

    def later(values: pa.Array) -> pa.Array:
        return pa.array(np.rint(sent + (np.asarray(values) - sent) * factor).astype(np.int64))

    for name in ("done", "body_end", "headers_at"):
        if table[name].null_count == 0:
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), later(table[name]))
    lists = table["token_at"].combine_chunks()
    of = np.repeat(sent, np.diff(np.asarray(lists.offsets)))
    moved = np.rint(of + (np.asarray(lists.values) - of) * factor).astype(np.int64)
    tokens = pa.ListArray.from_arrays(lists.offsets, pa.array(moved))
    table = table.set_column(table.schema.get_field_index("token_at"), "token_at", tokens)
    (folder / row_files.FOLDER).mkdir(parents=True)
    pq.write_table(table.cast(row_files.SCHEMA), folder / row_files.FOLDER / "0-00000.parquet")
    document = json.loads((run.folder / "run.json").read_text())
    if model := facts.pop("model", None):
        document["targets"] = [target | {"model": model} for target in document["targets"]]
    (folder / "run.json").write_text(json.dumps(document | facts))
    return run_folder.open_run(folder)
