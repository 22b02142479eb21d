"""What the servers say of themselves while the load runs: `/metrics` (Prometheus text), read every second.

The reading is off the client's critical path, in a process of its own: `python -m targets.telemetry.scraper`, started and ended by
`Scraper`. It reads each URL once before the load, every second during it and once after, a thread a URL, and writes one
JSON line a reading:

    {"at": 1000012345, "url": "...", "when": "during", "running": 12, "waiting": 3, "kv_use": 0.41,
     "ttft": [sum of seconds, count], ...}

and for each target that is not on this machine the network's round trip, as long as a TCP connect takes:

    {"at": 1000012345, "url": "https://api.groq.com", "when": "during", "round_trip": 0.0123}

`at` is nanoseconds from the run's start. A name that a server doesn't have is absent; a reading that failed has
`error`. `before` and `after` also have the histograms' buckets, so that quantiles of the run alone can be had. Prefill
and decode workers stay apart, because each has its URL. The names of vLLM, SGLang, Dynamo, TGI, TensorRT-LLM and
llama.cpp stand in the tables below (2026).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select
from statistics import median
from typing import IO, Any

from traces.errors import InputError

from ..address import resolve
from ..client.blocking import get
from ..client.http import HttpError
from ..clock import Clock, monotonic_ns
from ..target import Target
from ..url import loopback, port, split
from ..wire import lenient

EVERY = 1.0  # seconds
PATIENCE = 2.0  # seconds that one reading may take
LARGEST = 8 << 20  # bytes of one answer
UNLIKELY = 1e15  # counts and seconds are below it, and not below 0
FILE = "metrics.jsonl"

GAUGES = {
    "running": (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "dynamo_frontend_inflight_requests",
        "tgi_batch_current_size",
        "trtllm_num_requests_running",
        "llamacpp:requests_processing",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "dynamo_frontend_queued_requests",
        "tgi_queue_size",
        "trtllm_num_requests_waiting",
        "llamacpp:requests_deferred",
    ),
    "prefill_inflight": ("sglang:num_prefill_inflight_queue_reqs",),
    "decode_transfer": ("sglang:num_decode_transfer_queue_reqs",),
    "kv_use": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "trtllm_kv_cache_utilization",
    ),
    "kv_hit_rate": ("sglang:cache_hit_rate", "trtllm_kv_cache_hit_rate"),
}
LARGEST_COUNTS = {"kv_use", "kv_hit_rate"}  # shares: of several engines the fullest counts, others are added up
HISTOGRAMS = {
    "ttft": (
        "vllm:time_to_first_token_seconds",
        "sglang:time_to_first_token_seconds",
        "dynamo_frontend_time_to_first_token_seconds",
        "trtllm_time_to_first_token_seconds",
    ),
    "itl": (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds",
        "dynamo_frontend_inter_token_latency_seconds",
        "tgi_request_mean_time_per_token_duration",
        "trtllm_time_per_output_token_seconds",
    ),
    "e2e": (
        "vllm:e2e_request_latency_seconds",
        "sglang:e2e_request_latency_seconds",
        "dynamo_frontend_request_duration_seconds",
        "tgi_request_duration",
        "trtllm_e2e_request_latency_seconds",
    ),
    "queue": (
        "vllm:request_queue_time_seconds",
        "sglang:queue_time_seconds",
        "tgi_request_queue_duration",
        "trtllm_request_queue_time_seconds",
    ),
    "prefill": ("vllm:request_prefill_time_seconds",),
    "decode": ("vllm:request_decode_time_seconds",),
    "transfer": ("vllm:nixl_xfer_time_seconds",),
}

_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? +(\S+)(?: +-?\d+)?")
_LE = re.compile(r'(?:^|,)\s*le="([^"]*)"')
Samples = dict[str, list[tuple[str, float]]]


def samples(text: str) -> Samples:
    """The samples of a Prometheus text by name, each with its labels as they stand. Lines that are none are skipped."""
    found: Samples = defaultdict(list)
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if 0 <= value < UNLIKELY:
            found[match[1]].append((match[2] or "", value))
    return found


def reading(text: str, buckets: bool = False) -> dict[str, Any]:
    """What one answer says, under our names."""
    found = samples(text)
    row: dict[str, Any] = {}
    for ours, theirs in GAUGES.items():
        if name := next((name for name in theirs if name in found), None):
            values = [value for _, value in found[name]]
            row[ours] = max(values) if ours in LARGEST_COUNTS else sum(values)
    for ours, theirs in HISTOGRAMS.items():
        if name := next((name for name in theirs if f"{name}_count" in found and f"{name}_sum" in found), None):
            row[ours] = [sum(value for _, value in found[f"{name}_{part}"]) for part in ("sum", "count")]
            if buckets:
                row[f"{ours}_buckets"] = _buckets(found[f"{name}_bucket"])
    return row


def _buckets(parts: Iterable[tuple[str, float]]) -> list[list[float]]:
    """[upper bound, cumulative count] pairs, the series of several engines added up; the last bound is left out."""
    counts: dict[float, float] = defaultdict(float)
    for labels, value in parts:
        bound = _bound(labels)
        if math.isfinite(bound):
            counts[bound] += value
    return [[bound, counts[bound]] for bound in sorted(counts)]


def _bound(labels: str) -> float:
    named = _LE.search(labels)
    try:
        return float(named[1]) if named else math.nan
    except ValueError:
        return math.nan


def read(path: Path) -> list[dict[str, Any]]:
    """The readings of a run. A line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def means(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, tuple[float, int]]]:
    """By URL and phase: mean seconds and count of what happened between the readings before and after the load."""
    ends: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row.get("when") in ("before", "after") and "error" not in row:
            ends[row["url"]][row["when"]] = row
    return {url: dict(_phases(both)) for url, both in ends.items() if len(both) == 2}


def _phases(ends: dict[str, dict[str, Any]]) -> Iterator[tuple[str, tuple[float, int]]]:
    for phase in HISTOGRAMS:
        if phase in ends["after"]:
            before, after = ends["before"].get(phase, [0.0, 0.0]), ends["after"][phase]
            total, count = after[0] - before[0], round(after[1] - before[1])
            if count > 0 and total >= 0:
                yield phase, (total / count, count)


def round_trips(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By URL: the median round trip in seconds before, during and after the load."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "round_trip" in row:
            found[row["url"]][row["when"]].append(row["round_trip"])
    return {url: {when: median(times) for when, times in all_.items()} for url, all_ in found.items()}


class Scraper:
    """The process that reads, from here on until `stop`. Does nothing where there is nothing to read."""

    def __init__(self, specs: Iterable[Target], folder: Path, origin: int) -> None:
        """`origin` is the run's start, nanoseconds since the epoch (`Clock.origin`)."""
        command = [
            sys.executable,
            "-P",
            "-m",
            "targets.telemetry.scraper",
            "--out",
            str(folder / FILE),
            "--origin",
            str(origin),
        ]
        looks = [json.dumps(asdict(look)) for look in looks_at(specs)]
        self._process = None
        if looks:
            self._process = subprocess.Popen([*command, *looks], stdin=subprocess.PIPE, start_new_session=True)

    def stop(self) -> None:
        """Has the last reading made, and waits for it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(3 * PATIENCE)  # the reading that is under way, the last one, and a little
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None


@dataclass(frozen=True)
class Look:
    """What is looked at once a second: a URL's metrics, or the network's round trip to it."""

    url: str
    round_trip: bool = False
    insecure: bool = False
    ca_file: str | None = None

    def see(self, when: str) -> dict[str, Any]:
        """Raises OSError, HttpError or InputError."""
        if self.round_trip:
            return {"round_trip": _round_trip(self.url)}
        text = get(self.url, PATIENCE, insecure=self.insecure, ca_file=self.ca_file, largest=LARGEST)
        return reading(text.decode("utf-8", "replace"), buckets=when != "during")


def looks_at(specs: Iterable[Target]) -> list[Look]:
    """Each metrics URL once, trusted as its target is (of several targets the strictest counts), and what is far."""
    looks: dict[str, Look] = {}
    specs = sorted(specs, key=lambda spec: spec.insecure)
    for spec in specs:
        for url in spec.metrics:
            looks.setdefault(url, Look(url, insecure=spec.insecure, ca_file=spec.ca_file))
    far = {url for spec in specs for url in (spec.url, *spec.prefill, *spec.decode) if _is_far(url)}
    return [*looks.values(), *(Look(url, round_trip=True) for url in sorted(far))]


def _is_far(url: str) -> bool:
    """Is there a network in between? A Unix socket has none."""
    return not loopback(split(url).hostname or "localhost")


def _round_trip(url: str) -> float:
    """Seconds to the target itself and back, whatever proxy its requests take."""
    parts = split(url)
    family, address = resolve(parts.hostname or "", port(parts))[0]
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        began = monotonic_ns()
        sock.connect(address)  # type: ignore[arg-type]
        return (monotonic_ns() - began) * 1e-9


class _Log:
    """The file that all readings go into, and when they are over."""

    def __init__(self, out: IO[str], origin: int | None) -> None:
        self.clock, self.over = Clock(origin), threading.Event()
        self._out, self._lock = out, threading.Lock()
        self._told: set[str] = set()  # URLs whose metrics' failure was said

    def follow(self, look: Look) -> None:
        """One URL from before to after, on the run's whole seconds."""
        self._note(look, "before")
        while not self.over.wait(EVERY - self.clock.now() % 1_000_000_000 * 1e-9):
            self._note(look, "during")
        self._note(look, "after")

    def _note(self, look: Look, when: str) -> None:
        row: dict[str, Any] = {"at": self.clock.now(), "url": look.url, "when": when}
        try:
            row |= look.see(when)
        except (OSError, HttpError, InputError) as error:
            row["error"] = lenient.line(str(error) or type(error).__name__, 200)
        with self._lock:
            self._out.write(json.dumps(row) + "\n")
            self._out.flush()
            if "error" in row and not look.round_trip and look.url not in self._told:
                self._told.add(look.url)
                sys.stderr.write(f"{look.url}: its metrics can't be read: {row['error']}\n")


def main() -> None:
    """Reads until standard input ends: when the run does, or when the process that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m targets.telemetry.scraper")
    parser.add_argument("looks", nargs="+", help="each a Look as JSON")
    parser.add_argument("--out", required=True)
    parser.add_argument("--origin", type=int)
    options = parser.parse_args()
    looks = [Look(**json.loads(text)) for text in options.looks]
    with Path(options.out).open("a", encoding="utf-8") as out:
        log = _Log(out, options.origin)
        threads = [threading.Thread(target=log.follow, args=(look,), daemon=True) for look in looks]
        for thread in threads:
            thread.start()
        while not select([sys.stdin], [], [])[0] or os.read(sys.stdin.fileno(), 4096):
            pass
        log.over.set()
        for thread in threads:
            thread.join(2 * PATIENCE)


if __name__ == "__main__":
    main()
