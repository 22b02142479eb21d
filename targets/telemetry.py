"""Servers' own metrics. Pure, but for `read`.

A server's Prometheus text has metrics of vLLM, SGLang, Dynamo, TGI, TensorRT-LLM or llama.cpp (2026); each of our names
has the servers' own in the order in which they are looked for: the first that a server has counts.

scraper.py writes each `Reading` into metrics.jsonl of the run's folder (docs/contracts.md).
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from traces.errors import InputError
from traces.files import read_text, regular

FILE = "metrics.jsonl"
BEFORE, DURING, AFTER = "before", "during", "after"  # the load

GAUGES: dict[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running", "sglang:num_running_reqs", "dynamo_frontend_inflight_requests",
        "tgi_batch_current_size", "trtllm_num_requests_running", "llamacpp:requests_processing",
    ),
    "waiting": (
        "vllm:num_requests_waiting", "sglang:num_queue_reqs", "dynamo_frontend_queued_requests",
        "tgi_queue_size", "trtllm_num_requests_waiting", "llamacpp:requests_deferred",
    ),
    "prefill_inflight": ("sglang:num_prefill_inflight_queue_reqs",),
    "decode_transfer": ("sglang:num_decode_transfer_queue_reqs",),
    "kv_use": (
        "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage", "trtllm_kv_cache_utilization",
    ),
    "kv_hit_rate": ("sglang:cache_hit_rate", "trtllm_kv_cache_hit_rate"),
}  # fmt: skip
SHARES = {"kv_use", "kv_hit_rate"}  # of several engines the fullest counts; other gauges are added up
HISTOGRAMS = {
    "ttft": (
        "vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds",
        "dynamo_frontend_time_to_first_token_seconds", "trtllm_time_to_first_token_seconds",
    ),
    "itl": (
        "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds", "dynamo_frontend_inter_token_latency_seconds",
        "tgi_request_mean_time_per_token_duration", "trtllm_time_per_output_token_seconds",
    ),
    "e2e": (
        "vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds",
        "dynamo_frontend_request_duration_seconds", "tgi_request_duration", "trtllm_e2e_request_latency_seconds",
    ),
    "queue": (
        "vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration",
        "trtllm_request_queue_time_seconds",
    ),
    "prefill": ("vllm:request_prefill_time_seconds",),
    "decode": ("vllm:request_decode_time_seconds",),
    "transfer": ("vllm:nixl_xfer_time_seconds",),
}  # fmt: skip
UNLIKELY = 1e15  # counts and seconds are below it, and not below 0

_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? +(\S+)(?: +-?\d+)?")
_LE = re.compile(r'(?:^|,)\s*le="([^"]*)"')
Samples = dict[str, list[tuple[str, float]]]  # by name: each series' labels as they stand, and its value


@dataclass(frozen=True)
class Histogram:
    """A histogram so far: the sum of what was observed, how often that was, and where it is known (upper bound,
    cumulative count) pairs without the last, infinite bound."""

    sum: float
    count: float
    buckets: tuple[tuple[float, float], ...] | None = None


def parse(text: str) -> Samples:
    """The samples of a text. Lines that are none, and values that no server can mean, are skipped."""
    samples: Samples = defaultdict(list)
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line.strip()):
            with suppress(ValueError):
                value = float(match[3])
                if 0 <= value < UNLIKELY:
                    samples[match[1]].append((match[2] or "", value))
    return samples


def gauges(samples: Samples) -> dict[str, float]:
    """The gauges that a server has, by our names."""
    present: dict[str, float] = {}
    for ours, theirs in GAUGES.items():
        if name := next((name for name in theirs if name in samples), None):
            present[ours] = (max if ours in SHARES else sum)(value for _, value in samples[name])
    return present


def histograms(samples: Samples, buckets: bool = False) -> dict[str, Histogram]:
    """The histograms of seconds that a server has, by our names, the series of several engines added up."""
    present = {}
    for ours, theirs in HISTOGRAMS.items():
        if name := next((name for name in theirs if {f"{name}_sum", f"{name}_count"} <= samples.keys()), None):
            total, count = (sum(value for _, value in samples[f"{name}_{part}"]) for part in ("sum", "count"))
            present[ours] = Histogram(total, count, _buckets(samples.get(f"{name}_bucket", [])) if buckets else None)
    return present


def _buckets(series: list[tuple[str, float]]) -> tuple[tuple[float, float], ...]:
    """(upper bound, cumulative count) pairs; a bucket whose bound can't be read is left out."""
    counts: dict[float, float] = defaultdict(float)
    for labels, value in series:
        if match := _LE.search(labels):
            with suppress(ValueError):
                counts[float(match[1])] += value
    return tuple((bound, counts[bound]) for bound in sorted(filter(math.isfinite, counts)))


@dataclass(frozen=True)
class Reading:
    """What one URL gave: gauges and histograms by our names, or a round trip in seconds, or an error."""

    at: int
    url: str
    when: str
    gauges: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    round_trip: float | None = None
    error: str = ""

    @classmethod
    def of_text(cls, at: int, url: str, when: str, text: str) -> Reading:
        """The reading of a server's whole answer."""
        samples = parse(text)
        return cls(at, url, when, gauges(samples), histograms(samples, buckets=when != DURING))

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"at": self.at, "url": self.url, "when": self.when, **self.gauges}
        for name, histogram in self.histograms.items():
            row[name] = [histogram.sum, histogram.count]
            if histogram.buckets is not None:
                row[f"{name}_buckets"] = histogram.buckets
        if self.round_trip is not None:
            row["round_trip"] = self.round_trip
        return row | {"error": self.error} if self.error else row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reading:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        gauges = {name: float(row[name]) for name in GAUGES if name in row}
        histograms = {}
        for name in filter(row.__contains__, HISTOGRAMS):
            (total, count), pairs = row[name], row.get(f"{name}_buckets")
            buckets = None if pairs is None else tuple((bound, within) for bound, within in pairs)
            histograms[name] = Histogram(total, count, buckets)
        error, round_trip = row.get("error", ""), row.get("round_trip")
        return cls(int(row["at"]), row["url"], row["when"], gauges, histograms, round_trip, error)


def read(path: Path) -> list[Reading]:
    """The readings of a file. A line that a kill cut short is left out. Raises InputError."""
    readings = []
    for number, line in enumerate(read_text(regular(path)).splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            readings.append(Reading.from_json(row))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a reading: {error!r}", where=str(path), line=number) from None
    return readings


def means(readings: Iterable[Reading]) -> dict[str, dict[str, tuple[float, int]]]:
    """By URL and phase: mean seconds and count of what happened between the readings before and after the load."""
    ends: dict[str, dict[str, Reading]] = defaultdict(dict)
    for reading in readings:
        if reading.when != DURING and not reading.error:
            ends[reading.url][reading.when] = reading
    means: dict[str, dict[str, tuple[float, int]]] = {}
    for url, both in ends.items():
        for name, end in both[AFTER].histograms.items() if len(both) == 2 else ():
            start = both[BEFORE].histograms.get(name, Histogram(0.0, 0.0))
            total, count = end.sum - start.sum, round(end.count - start.count)
            if count > 0 and total >= 0:
                means.setdefault(url, {})[name] = total / count, count
    return means


def round_trips(readings: Iterable[Reading]) -> dict[str, dict[str, float]]:
    """By URL: the median round trip in seconds before, during and after the load."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for reading in readings:
        if reading.round_trip is not None:
            times[reading.url][reading.when].append(reading.round_trip)
    return {url: {when: median(each) for when, each in of_url.items()} for url, of_url in times.items()}
