"""summary.json: what a run measured, as numbers. Durations in seconds; vLLM's flat keys in ms, as vLLM has them.

Of each target in each load step: counted requests only, prefill's figures and decode's side by side and never averaged
together, every quantile with its interval and the samples it needs. docs/metrics.md defines each figure for readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pandas as pd

from targets.exchange import NANO, Outcome
from traces.errors import InputError

from ..store import run_folder
from ..store.digests import METRICS, UNADJUSTED, Digests
from ..store.run_folder import Key, Run
from . import comparison, gates, overload, quantiles, slices, time_account, validity
from .quantiles import Values, finite

FORMAT = 1
CHARACTERS = 4  # of a reference token, where no tokenizer is at hand
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
SERVER = ("server_queue", "server_prefill", "server_transfer", "server_decode", "server_ttft", "server_total")


def save(run: Run, goodput: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Writes the run's summary.json (and digests.json where the run left none that fits), and returns the summary."""
    summary, folder = of(run, goodput), run.folder
    partial = folder / "summary.json.partial"
    partial.write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    partial.replace(folder / "summary.json")
    return summary


def of(run: Run, goodput: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The summary of a run read back; `goodput` {metric: seconds} overrides the run's own objectives."""
    facts = run.facts
    objectives = dict(goodput) if goodput is not None else gates.parse_goodput(list(facts.goodput))
    digests = _digests(run)
    results, evidence = [], []
    for key, rows in run.groups():
        sample = run_folder.sample(run, key, rows, objectives)
        results.append(_result(run, key, rows, sample, digests, objectives))
        evidence.append(_evidence(key, rows, sample))
    judged = validity.judge(evidence, _conduct(run))
    return {
        "format": FORMAT,
        "run": {name: getattr(facts, name) for name in ("created", "version", "seed", "salt", "order", "ended", "argv")}
        | {"name": run.name, "folder": str(run.folder)},
        "validity": judged.as_json(),
        "objectives": objectives,
        "digests": f"from the {digests.origin}",
        "results": results,
        "comparison": comparison.of_run(run),
    }


def _digests(run: Run) -> Digests:
    """The digests that travelled through Locust where they hold every row, else new ones of the rows."""
    path = run.folder / "digests.json"
    counted = run.rows[run.rows["counted"]]
    sizes = counted.groupby(["target", "step"], observed=True)["ok"].agg(["size", "sum"])
    there = {
        (str(target), str(step)): (int(n), int(n - ok))
        for (target, step), (n, ok) in zip(sizes.index, sizes.to_numpy(), strict=True)
    }
    if path.exists():
        try:
            stored = Digests.load(path)
        except InputError:  # the rows are the truth; a damaged digest doesn't stop a report
            stored = Digests()
        if there == {key: (group.counted, group.failed) for key, group in stored.groups.items()}:
            return stored
    fresh = _of_rows(run)
    fresh.save(path)
    return fresh


def _of_rows(run: Run) -> Digests:
    digests = Digests("rows")
    for key, rows in run.groups():
        counted = rows[rows["counted"]]
        if not len(counted):
            continue
        answered = counted[counted["ok"]]
        digests.count(*key, len(counted), len(counted) - len(answered))
        for metric, values in run_folder.values(run, key, counted, answered).items():
            if metric in METRICS:
                digests.add_values(*key, metric, values)
    return digests


def _result(
    run: Run,
    key: Key,
    rows: pd.DataFrame,
    sample: Mapping[str, Any],
    digests: Digests,
    objectives: Mapping[str, float],
) -> dict[str, Any]:
    counted = rows[rows["counted"]]
    answered = counted[counted["ok"]]
    window, step = run.window(key, rows), run.step(key)
    figures = {name: _figures(name, key, sample, digests) for name in (*sample["values"],)}
    return {
        "target": key[0],
        "step": key[1],
        "load": step.load if step else "",
        "window": [window[0] * NANO, window[1] * NANO],
        "counts": _counts(run, key, rows, counted),
        "metrics": figures,
        "throughput": {"requests_per_s": sample["requests_per_s"], "output_tokens_per_s": sample["tokens_per_s"]},
        "goodput": _goodput(sample, objectives),
        "lengths": _lengths(answered),
        "tokens_from": {str(name): int(n) for name, n in answered["token_source"].value_counts().items() if n},
        "cached": _cached(answered, run),
        "phases": time_account.account(answered),
        "server": {name: _account(answered[name]) for name in SERVER}
        | {"ttft_difference": _account(answered["ttft"] - answered["server_ttft"])},
        "cost": time_account.costs(
            _running_costs(run, key[0]), sample["tokens_per_s"], _good_tokens(answered, sample, objectives)
        ),
        "overloaded": overload.grows(rows, window),
        "client": _client(counted),
        "in_flight": _in_flight(counted),
        "slices": {name: slices.table(counted, name) for name in slices.SLICES},
        "errors": _errors(counted),
        "vllm": _vllm(sample, answered, objectives),
    }


def _running_costs(run: Run, name: str) -> dict[str, float | None]:
    """A target's price per hour and watts, where run.json has them."""
    targets = [target for target in run.facts.targets if target.name == name]
    return {"price_per_hour": targets[0].price_per_hour, "watts": targets[0].watts} if targets else {}


def _good_tokens(answered: pd.DataFrame, sample: Mapping[str, Any], objectives: Mapping[str, float]) -> float | None:
    """The part of the tokens per second that belongs to requests which met every objective."""
    whole = float(answered["output_count"].sum())
    if not objectives or not whole:
        return None
    return float(
        sample["tokens_per_s"] * answered.loc[run_folder.meets(answered, objectives), "output_count"].sum() / whole
    )


def _figures(name: str, key: Key, sample: Mapping[str, Any], digests: Digests) -> dict[str, Any]:
    values: Values = sample["values"][name]
    failed = 0 if name in UNADJUSTED else sample["failed"]
    found = [quantiles.quantile(values, q, failed) for q in QUANTILES]
    rows = []
    for quantile in found:
        row = quantile.as_json()
        if name == "itl":  # gaps of one request depend on each other: no interval from them
            row |= {"low": None, "high": None}
        if name in METRICS:
            row["digest"] = finite(digests.quantile(*key, name, quantile.q))
            row["digest_error"] = _relative(row["digest"], row["answered"])
        rows.append(row)
    return {
        "n": len(values),
        "failed": failed,
        "mean": finite(float(values.mean())) if len(values) else None,
        "min": float(values[0]) if len(values) else None,
        "max": float(values[-1]) if len(values) else None,
        "quantiles": rows,
    }


def _relative(value: float | None, truth: float | None) -> float | None:
    return None if value is None or not truth else value / truth - 1


def _counts(run: Run, key: Key, rows: pd.DataFrame, counted: pd.DataFrame) -> dict[str, Any]:
    outcomes = {str(name): int(n) for name, n in counted["outcome"].value_counts().items() if n}
    step = run.step(key)
    return {
        "planned": step.planned.get(key[0]) if step else None,
        "unsent": step.unsent.get(key[0], 0) if step else 0,
        "recorded": len(rows),
        "warmup": len(rows) - len(counted),
        "counted": len(counted),
        "ok": outcomes.get("ok", 0),
        "failed": len(counted) - outcomes.get("ok", 0),
        "requests": (requests := counted["index"].nunique()),
        "admitted": _let_in(counted) / requests if requests else None,
        "outcomes": outcomes,
        "whole": int((counted["ok"] & counted["whole"]).sum()),
        "at_once": int(_at_once(counted).sum()),
        "retried": int((counted["attempt"] > 1).sum()),
    }


def _let_in(counted: pd.DataFrame) -> int:
    """Requests that weren't refused for their rate at some try: one row is one try."""
    return int(counted.loc[counted["outcome"] != Outcome.RATE_LIMITED.value, "index"].nunique())


def _at_once(counted: pd.DataFrame) -> pd.Series[bool]:
    """Streams whose tokens, more than one, all came in one read: they tell nothing of prefill apart from decode."""
    alone = (counted["reads"] == 1) & (counted["output_count"] > 1)
    return counted["ok"] & ~counted["whole"] & alone


def _goodput(sample: Mapping[str, Any], objectives: Mapping[str, float]) -> dict[str, Any] | None:
    if not objectives:
        return None
    good, window = sample["good"], sample["window"]
    return {
        "objectives": dict(objectives),
        "good": good,
        "share": good / sample["counted"] if sample["counted"] else None,
        "requests_per_s": good / window if window else None,
    }


def _lengths(answered: pd.DataFrame) -> dict[str, Any]:
    """Asked (the trace's) against given (what the server says, or sent): comparing E2E stands on their equality."""
    pairs = {
        "prompt": (answered["prompt_tokens"], answered["usage_prompt"].dropna()),
        "output": (answered["output_tokens"], answered["output_count"]),
    }
    lengths: dict[str, Any] = {
        name: {"asked_p50": _median(asked), "given_p50": _median(given), "asked": _sum(asked), "given": _sum(given)}
        for name, (asked, given) in pairs.items()
    }
    return lengths | {"reference": _reference(answered)}


def _reference(answered: pd.DataFrame) -> dict[str, Any] | None:
    """TPOT per reference token: vendors' tokens differ, text doesn't. Counted by the local tokenizer where one was
    given, else four characters are one. None where no text was counted."""
    local = answered["tokenizer_output"].notna().all() and len(answered) > 0
    tokens = answered["tokenizer_output"] if local else answered["chars"] / CHARACTERS
    later = tokens * (1 - answered["first_tokens"] / answered["output_count"].where(answered["output_count"] > 0))
    elapsed = (answered["last_token"] - answered["first_token"]) * NANO
    found = (elapsed / later.where(later > 0)).where(answered["tpot"].notna())
    if not found.notna().any():
        return None
    unit = "token of the local tokenizer" if local else f"{CHARACTERS} characters"
    return {"unit": unit, "tpot_p50": _median(found.dropna()), "n": int(found.notna().sum())}


def _median(values: pd.Series[float]) -> float | None:
    return finite(float(values.median())) if len(values) else None


def _sum(values: pd.Series[float]) -> int | None:
    return _whole(float(values.sum())) if len(values) else None


def _whole(value: float) -> int:
    """JSON's writer holds 64 bits, and a server may claim any number of tokens."""
    return int(min(value, 2.0**62))


def _cached(answered: pd.DataFrame, run: Run) -> dict[str, Any]:
    """The share of prompt tokens that the server says it had cached, beside what the trace's own prefixes allow."""
    told = answered.dropna(subset=["usage_cached", "usage_prompt"])
    prefix = run.facts.trace.profile.prefix if run.facts.trace else None
    reported = (
        float(told["usage_cached"].sum() / told["usage_prompt"].sum())
        if len(told) and told["usage_prompt"].sum()
        else None
    )
    return {"reported": reported, "requests": len(told), "trace_allows": prefix.hit_share if prefix else None}


def _account(column: pd.Series[float]) -> dict[str, Any] | None:
    """The server's own figure for a phase: None where it reports none."""
    told: Values = np.sort(column.dropna().to_numpy(np.float64))
    if not len(told):
        return None
    return {"n": len(told), "mean": float(told.mean()), "p50": quantiles.at(told, 0.5), "p99": quantiles.at(told, 0.99)}


def _client(counted: pd.DataFrame) -> dict[str, Any]:
    """What the client's own condition was: brackets at both ends, shares of inexact instants."""
    read = counted[counted["reads"] > 0]
    return {
        "brackets": {name: list(ends) for name, ends in _brackets(counted).items()},
        "shared_first_reads": float((read["first_events"] > 1).mean()) if len(read) else None,
        "unstamped": float((read["unstamped"] > 0).mean()) if len(read) else None,
        "reused_connections": float(counted["reused"].mean()) if len(counted) else None,
        "max_lag": finite(float(counted["max_lag"].max() * NANO)) if len(counted) else None,
    }


def _brackets(counted: pd.DataFrame) -> dict[str, tuple[float, float]]:
    answered = counted[counted["ok"]]
    found = {}
    for name, low, high in (("ttft", "ttft_low", "ttft"), ("tpot", "tpot_low", "tpot_high")):
        ends = [np.sort(answered[column].dropna().to_numpy()) for column in (low, high)]
        for q, label in ((0.5, "p50"), (0.99, "p99")):
            if len(ends[0]):
                found[f"{name} {label}"] = (quantiles.at(ends[0], q), quantiles.at(ends[1], q))
    return found


def _in_flight(counted: pd.DataFrame) -> dict[str, Any]:
    told = counted["in_flight"].dropna()
    if not len(told):
        return {"mean": None, "p50": None, "max": None}
    return {"mean": float(told.mean()), "p50": float(told.median()), "max": int(told.max())}


def _errors(counted: pd.DataFrame) -> list[dict[str, Any]]:
    """The most frequent error texts, at most ten; a server wrote them, so they are cut and must be escaped."""
    failed = counted[~counted["ok"]]
    grouped = failed.groupby(["outcome", "error"], observed=True).size().reset_index(name="n")
    most = grouped.sort_values(["n", "outcome", "error"], ascending=[False, True, True]).head(10)
    return [
        {"outcome": str(outcome), "error": str(error)[:300], "n": int(n)}
        for outcome, error, n in zip(most["outcome"], most["error"], most["n"], strict=True)
    ]


def _vllm(sample: Mapping[str, Any], answered: pd.DataFrame, objectives: Mapping[str, float]) -> dict[str, Any]:
    """vLLM's benchmark keys, so that dashboards made for it read this too: of answered requests, ms and per second."""
    window = sample["window"]
    prompt, output = float(answered["prompt_tokens"].sum()), float(answered["output_count"].sum())
    flat: dict[str, Any] = {
        "duration": window,
        "completed": len(answered),
        "failed": sample["failed"],
        "total_input_tokens": _whole(prompt),
        "total_output_tokens": _whole(output),
        "request_throughput": sample["requests_per_s"],
        "request_goodput": sample["good"] / window if objectives and window else None,
        "output_throughput": sample["tokens_per_s"],
        "total_token_throughput": sample["tokens_per_s"] + (prompt / window if window else 0.0),
    }
    for ours, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
        values = sample["values"][ours]
        flat[f"mean_{theirs}_ms"] = finite(values.mean() * 1e3) if len(values) else None
        flat[f"median_{theirs}_ms"] = finite(quantiles.at(values, 0.5) * 1e3)
        flat[f"std_{theirs}_ms"] = finite(values.std() * 1e3) if len(values) else None
        for q, label in ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")):
            flat[f"{label}_{theirs}_ms"] = finite(quantiles.at(values, q) * 1e3)
    return flat


def _evidence(key: Key, rows: pd.DataFrame, sample: Mapping[str, Any]) -> validity.Evidence:
    counted = rows[rows["counted"]]
    late = sample["values"]["lateness"]
    read = counted[counted["reads"] > 0]
    own = counted.loc[counted["outcome"] == "internal_error", "error"]
    return validity.Evidence(
        target=key[0],
        step=key[1],
        counted=len(counted),
        brackets=_brackets(counted),
        lateness_p99=quantiles.at(late, 0.99) if len(late) else None,
        mean_gap=sample["window"] / len(counted) if len(counted) else None,
        unstamped_share=float((read["unstamped"] > 0).mean()) if len(read) else 0.0,
        internal_errors=len(own),
        fault=str(own.mode().iloc[0]) if len(own) else "",
        stepped=int(counted["stepped"].sum()),
        duplicates=int(rows.duplicated(["index", "attempt"]).sum()),
    )


def _conduct(run: Run) -> validity.Conduct:
    facts = run.facts
    return validity.Conduct(
        ended=facts.ended,
        lost_workers=[f"{worker.number} ({worker.lost})" for worker in facts.workers if worker.lost],
        clock_offset=max((abs(worker.clock_offset_s or 0.0) for worker in facts.workers), default=0.0),
        clock_steps=sum(len(worker.diagnostics.clock_steps) for worker in facts.workers if worker.diagnostics),
        missing=facts.missing,
        certificate=facts.certificate_exceeded,
        damaged=run.damaged,
        lacking=run.lacking,
    )
