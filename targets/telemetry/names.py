"""Which metric of which server means what: vLLM, SGLang, Dynamo, TGI, TensorRT-LLM and llama.cpp (2026). Pure.

Each of our names has the servers' own in the order in which they are looked for: the first that a server has counts.
"""

from __future__ import annotations

from .prometheus import Histogram, Samples, histogram, values

GAUGES: dict[str, tuple[str, ...]] = {
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
SHARES = {"kv_use", "kv_hit_rate"}  # of several engines the fullest counts; other gauges are added up
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


def gauges(samples: Samples) -> dict[str, float]:
    """The gauges that a server has, by our names."""
    present: dict[str, float] = {}
    for ours, theirs in GAUGES.items():
        if name := next((name for name in theirs if name in samples), None):
            present[ours] = (max if ours in SHARES else sum)(values(samples, name))
    return present


def histograms(samples: Samples, buckets: bool = False) -> dict[str, Histogram]:
    """The histograms of seconds that a server has, by our names."""
    candidates = {ours: [histogram(samples, name, buckets) for name in theirs] for ours, theirs in HISTOGRAMS.items()}
    return {ours: present[0] for ours, each in candidates.items() if (present := [h for h in each if h is not None])}
