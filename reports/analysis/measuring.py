"""Computes the `Result` of a sample: counts, metrics, lengths, and what the server and the client reported. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from math import nan

import numpy as np
import pandas as pd

from targets.exchange import Outcome
from traces.request import NS_PER_S

from ..store.digests import METRICS, Digests
from ..store.run_folder import Run
from . import overload, quantiles, slices, time_account
from .durations import DURATIONS
from .quantiles import Quantile, Values, finite
from .result import (
    Cached,
    ClientState,
    Counts,
    DigestedQuantile,
    ErrorCount,
    Goodput,
    InFlight,
    Length,
    Lengths,
    Metric,
    Reference,
    Result,
    ServerFigure,
)  # fmt: skip
from .samples import Sample
from .throughput import costs

CHARACTERS = 4  # of a reference token, where no tokenizer is at hand
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
SERVER = ("server_queue", "server_prefill", "server_transfer", "server_decode", "server_ttft", "server_total")
ERRORS = 10  # texts that are listed, the most frequent first
ERROR_LENGTH = 300  # characters of each


def measure(run: Run, sample: Sample, digests: Digests, objectives: Mapping[str, float]) -> Result:
    """`objectives`: those that the sample was made with."""
    counted, answered = sample.counted, sample.answered
    step = run.step((sample.target, sample.step))
    target = next((target for target in run.facts.targets if target.name == sample.target), None)
    return Result(
        target=sample.target,
        step=sample.step,
        load=step.load if step else "",
        window=(sample.window[0] / NS_PER_S, sample.window[1] / NS_PER_S),
        counts=_counts(
            sample,
            counted,
            step.planned.get(sample.target) if step else None,
            step.unsent.get(sample.target, 0) if step else 0,
        ),
        metrics={name: _metric(name, sample, digests) for name in (*DURATIONS, "itl")},
        throughput=sample.throughput,
        goodput=_goodput(sample, objectives),
        lengths=_lengths(answered),
        tokens_from={str(name): int(n) for name, n in answered["token_source"].value_counts().items() if n},
        cached=_cached(answered, run),
        phases=time_account.account(answered),
        server={name: _server_figure(answered[name]) for name in SERVER}
        | {"ttft_difference": _server_figure(answered["ttft"] - answered["server_ttft"])},
        cost=costs(
            target.price_per_hour if target else None,
            target.watts if target else None,
            sample.throughput.output_tokens_per_s,
            sample.good_tokens_per_s,
        ),
        overloaded=overload.grows(sample.rows, sample.window),
        client=_client(sample, counted),
        in_flight=_in_flight(counted),
        slices={name: slices.table(counted, name) for name in slices.SLICES},
        errors=_errors(counted),
        vllm=_vllm(sample, answered),
    )


def _counts(sample: Sample, counted: pd.DataFrame, planned: int | None, unsent: int) -> Counts:
    outcomes = {str(name): int(n) for name, n in counted["outcome"].value_counts().items() if n}
    requests = int(counted["index"].nunique())
    admitted = int(counted.loc[counted["outcome"] != Outcome.RATE_LIMITED.value, "index"].nunique())
    in_one_read = (counted["reads"] == 1) & (counted["output_count"] > 1)
    return Counts(
        planned=planned,
        unsent=unsent,
        recorded=len(sample.rows),
        warmup=len(sample.rows) - sample.n,
        counted=sample.n,
        ok=sample.n - sample.failed,
        failed=sample.failed,
        requests=requests,
        admitted=admitted / requests if requests else None,
        outcomes=outcomes,
        whole=int((counted["ok"] & counted["whole"]).sum()),
        at_once=int((counted["ok"] & ~counted["whole"] & in_one_read).sum()),
        retried=int((counted["attempt"] > 1).sum()),
    )


def _metric(name: str, sample: Sample, digests: Digests) -> Metric:
    values = sample.values[name]
    rows = [sample.quantile(name, q) for q in QUANTILES]
    if name == "itl":  # gaps of one request depend on each other: no interval from them
        rows = [replace(row, low=nan, high=nan) for row in rows]
    if name in METRICS:
        rows = [_digested(row, digests.quantile(sample.target, sample.step, name, row.q)) for row in rows]
    return Metric(
        n=len(values),
        failed=sample.failed_in(name),
        mean=finite(float(values.mean())) if len(values) else None,
        min=float(values[0]) if len(values) else None,
        max=float(values[-1]) if len(values) else None,
        quantiles=tuple(rows),
    )


def _digested(quantile: Quantile, digest: float) -> DigestedQuantile:
    exact = finite(quantile.answered)
    error = digest / exact - 1 if exact and finite(digest) is not None else None
    values = {field.name: getattr(quantile, field.name) for field in fields(quantile)}
    return DigestedQuantile(**values, digest=finite(digest), digest_error=error)


def _goodput(sample: Sample, objectives: Mapping[str, float]) -> Goodput | None:
    if sample.good is None:
        return None
    return Goodput(dict(objectives), sample.good, sample.good / sample.n if sample.n else None, sample.goodput)


def _lengths(answered: pd.DataFrame) -> Lengths:
    return Lengths(
        prompt=_length(answered["prompt_tokens"], answered["usage_prompt"].dropna()),
        output=_length(answered["output_tokens"], answered["output_count"]),
        reference=_reference(answered),
    )


def _length(asked: pd.Series[float], given: pd.Series[float]) -> Length:
    return Length(_median(asked), _median(given), _sum(asked), _sum(given))


def _reference(answered: pd.DataFrame) -> Reference | None:
    """Counted by the local tokenizer where one was given, else four characters are one. None where no text was
    counted."""
    local = answered["tokenizer_output"].notna().all() and len(answered) > 0
    tokens = answered["tokenizer_output"] if local else answered["chars"] / CHARACTERS
    later = tokens * (1 - answered["first_tokens"] / answered["output_count"].where(answered["output_count"] > 0))
    elapsed = (answered["last_token"] - answered["first_token"]) / NS_PER_S
    tpot = (elapsed / later.where(later > 0)).where(answered["tpot"].notna()).dropna()
    if not len(tpot):
        return None
    unit = "token of the local tokenizer" if local else f"{CHARACTERS} characters"
    return Reference(unit, _median(tpot), len(tpot))


def _median(values: pd.Series[float]) -> float | None:
    return finite(float(values.median())) if len(values) else None


def _sum(values: pd.Series[float]) -> int | None:
    return _whole(float(values.sum())) if len(values) else None


def _whole(value: float) -> int:
    """JSON's writer holds 64 bits, and a server may claim any number of tokens."""
    return int(min(value, 2.0**62))


def _cached(answered: pd.DataFrame, run: Run) -> Cached:
    known = answered.dropna(subset=["usage_cached", "usage_prompt"])
    prefix = run.facts.trace.profile.prefix if run.facts.trace else None
    prompt_tokens = known["usage_prompt"].sum()
    reported = float(known["usage_cached"].sum() / prompt_tokens) if prompt_tokens else None
    return Cached(reported, len(known), prefix.hit_share if prefix else None)


def _server_figure(column: pd.Series[float]) -> ServerFigure | None:
    """None where the server reports none."""
    values: Values = np.sort(column.dropna().to_numpy(np.float64))
    if not len(values):
        return None
    return ServerFigure(len(values), float(values.mean()), quantiles.at(values, 0.5), quantiles.at(values, 0.99))


def _client(sample: Sample, counted: pd.DataFrame) -> ClientState:
    read = counted[counted["reads"] > 0]
    return ClientState(
        brackets=brackets(sample),
        shared_first_reads=float((read["first_events"] > 1).mean()) if len(read) else None,
        unstamped=float((read["unstamped"] > 0).mean()) if len(read) else None,
        reused_connections=float(counted["reused"].mean()) if len(counted) else None,
        max_lag=finite(float(counted["max_lag"].max() / NS_PER_S)) if len(counted) else None,
    )


def brackets(sample: Sample) -> dict[str, tuple[float, float]]:
    """ "ttft p50" -> the quantile of the answered requests at both ends of their first and last tokens' brackets."""
    ends = {}
    for name, low, high in (("ttft", "ttft_low", "ttft"), ("tpot", "tpot_low", "tpot_high")):
        if len(sample.values[low]):
            for q, label in ((0.5, "p50"), (0.99, "p99")):
                ends[f"{name} {label}"] = quantiles.at(sample.values[low], q), quantiles.at(sample.values[high], q)
    return ends


def _in_flight(counted: pd.DataFrame) -> InFlight:
    levels = counted["in_flight"].dropna()
    if not len(levels):
        return InFlight(None, None, None)
    return InFlight(float(levels.mean()), float(levels.median()), int(levels.max()))


def _errors(counted: pd.DataFrame) -> list[ErrorCount]:
    """The most frequent error texts."""
    failed = counted[~counted["ok"]]
    grouped = failed.groupby(["outcome", "error"], observed=True).size().reset_index(name="n")
    most = grouped.sort_values(["n", "outcome", "error"], ascending=[False, True, True]).head(ERRORS)
    return [
        ErrorCount(str(outcome), str(error)[:ERROR_LENGTH], int(n))
        for outcome, error, n in zip(most["outcome"], most["error"], most["n"], strict=True)
    ]


def _vllm(sample: Sample, answered: pd.DataFrame) -> dict[str, float | None]:
    """vLLM's benchmark keys, so that dashboards made for it read this too: of answered requests, ms and per second."""
    window, rates = sample.window_s, sample.throughput
    prompt, output = float(answered["prompt_tokens"].sum()), float(answered["output_count"].sum())
    flat: dict[str, float | None] = {
        "duration": window,
        "completed": len(answered),
        "failed": sample.failed,
        "total_input_tokens": _whole(prompt),
        "total_output_tokens": _whole(output),
        "request_throughput": rates.requests_per_s,
        "request_goodput": sample.goodput,
        "output_throughput": rates.output_tokens_per_s,
        "total_token_throughput": rates.output_tokens_per_s + (prompt / window if window else 0.0),
    }
    for metric, name in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
        values = sample.values[metric]
        flat[f"mean_{name}_ms"] = finite(values.mean() * 1e3) if len(values) else None
        flat[f"median_{name}_ms"] = finite(quantiles.at(values, 0.5) * 1e3)
        flat[f"std_{name}_ms"] = finite(values.std() * 1e3) if len(values) else None
        for q, label in ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")):
            flat[f"{label}_{name}_ms"] = finite(quantiles.at(values, q) * 1e3)
    return flat
