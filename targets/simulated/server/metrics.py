"""`/metrics` in Prometheus' text format under vLLM's names, from what the engine planned. Pure.

Beside vLLM's: `phaseload:step_lateness_seconds`, how late after its planned instant each step was sent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from ..engine.job import Job, Station

# vLLM's buckets for times of requests, in seconds.
BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
BYTES = (1e6, 1e7, 5e7, 1e8, 5e8, 1e9, 2e9, 5e9, 1e10)
LATE = (1e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2)
COUNTERS = {
    "vllm:prompt_tokens_total": "Prompt tokens.",
    "vllm:generation_tokens_total": "Output tokens.",
    "vllm:request_success_total": "Finished requests.",
    "vllm:num_preemptions_total": "Preemptions of finished requests.",
    "vllm:prefix_cache_hits_total": "Prompt tokens found in the cache.",
}


class Histogram:
    __slots__ = ("bounds", "counts", "help", "name", "total")

    def __init__(self, name: str, help: str, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.name, self.help, self.bounds = name, help, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def lines(self, labels: str) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        seen = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            yield f'{self.name}_bucket{{{labels},le="{bound}"}} {seen}'
        yield f"{self.name}_sum{{{labels}}} {self.total:.9g}"
        yield f"{self.name}_count{{{labels}}} {seen}"


class Metrics:
    def __init__(self, model: str, kv_bytes: float) -> None:
        self._kv_bytes = kv_bytes
        self._labels = f'model_name="{model}",engine="0"'
        self.ttft = Histogram("vllm:time_to_first_token_seconds", "Time to first token.")
        self.tpot = Histogram("vllm:request_time_per_output_token_seconds", "Mean time per output token of a request.")
        self.itl = Histogram("vllm:inter_token_latency_seconds", "Time between tokens: the mean of each request.")
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.")
        self.queue = Histogram("vllm:request_queue_time_seconds", "Time in WAITING.")
        self.prefill = Histogram("vllm:request_prefill_time_seconds", "Time in PREFILL.")
        self.decode = Histogram("vllm:request_decode_time_seconds", "Time in DECODE.")
        self.inference = Histogram("vllm:request_inference_time_seconds", "Time in RUNNING.")
        self.transfer = Histogram("vllm:nixl_xfer_time_seconds", "KV transfer of a request.")
        self.carried = Histogram("vllm:nixl_bytes_transferred", "KV bytes of a transfer.", BYTES)
        self.late = Histogram("phaseload:step_lateness_seconds", "Step sent after its planned instant.", LATE)
        self.counts = dict.fromkeys(COUNTERS, 0)

    def add(self, job: Job) -> None:
        """A finished job."""
        queue, prefill, transfer, decode = job.phases()
        self.ttft.add(job.first - job.arrival)
        self.e2e.add(job.last - job.arrival)
        if job.output > 1:
            self.tpot.add(tpot := (job.last - job.first) / (job.output - 1))
            self.itl.add(tpot, job.output - 1)
        for histogram, value in ((self.queue, queue), (self.prefill, prefill), (self.decode, decode)):
            histogram.add(value)
        self.inference.add(prefill + decode)
        if job.transferred >= 0:
            self.transfer.add(transfer)
            self.carried.add(job.prompt * self._kv_bytes)
        amounts = (job.prompt, job.output, 1, job.preempted, job.cached)
        for name, amount in zip(COUNTERS, amounts, strict=True):
            self.counts[name] += amount

    def text(self, station: Station) -> str:
        working, waiting, kv_share = station.use()
        values: list[tuple[str, str, str, float]] = [
            ("vllm:num_requests_running", "gauge", "Requests in work.", working),
            ("vllm:num_requests_waiting", "gauge", "Requests waiting.", waiting),
            ("vllm:kv_cache_usage_perc", "gauge", "KV cache in use, 1 is all of it.", round(kv_share, 6)),
            *((name, "counter", help, self.counts[name]) for name, help in COUNTERS.items()),
        ]
        lines = []
        for name, kind, help, value in values:
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}", f"{name}{{{self._labels}}} {value}"]
        histograms = (self.ttft, self.tpot, self.itl, self.e2e, self.queue, self.prefill, self.decode, self.inference)
        for histogram in (*histograms, self.transfer, self.carried, self.late):
            lines += histogram.lines(self._labels)
        return "\n".join(lines) + "\n"
